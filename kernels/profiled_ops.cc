#include "kernels/profiled_ops.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>
#include <vector>

#include "host/output_file.h"

namespace ocelli::kernels {
namespace {

using Clock = std::chrono::steady_clock;

struct Event {
  const char* operation;
  int rows;
  int inputs;
  int outputs;
  int64_t begin_ns;
  int64_t duration_ns;
};

class ProfiledOpsImpl : public ProfiledOps {
  // Runs `operation` and records how long it took.
  template <typename Operation>
  auto timed(const char* operation_name, int rows, int inputs, int outputs,
             const Operation& operation) {
    struct Recorder {
      ProfiledOpsImpl& ops;
      Event event;
      ~Recorder() {
        event.duration_ns = ops.now_ns() - event.begin_ns;
        ops.events_.push_back(event);
      }
    };
    const Recorder recorder{*this, {operation_name, rows, inputs, outputs, now_ns(), 0}};
    return operation();
  }

  int64_t now_ns() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
  }

 public:
  explicit ProfiledOpsImpl(std::unique_ptr<Ops> inner) : inner_(std::move(inner)) {}

  const char* name() const override { return inner_->name(); }

  void save(const std::string& path) const override {
    std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
    json += fmt::format(
        R"({{"name":"thread_name","ph":"M","pid":1,"tid":1,"args":{{"name":"{}"}}}})", name());
    for (const Event& event : events_) {
      json += fmt::format(
          ",\n"
          R"({{"name":"{}","cat":"ops","ph":"X","pid":1,"tid":1,"ts":{:.3f},"dur":{:.3f},)"
          R"("args":{{"rows":{},"inputs":{},"outputs":{}}}}})",
          event.operation, event.begin_ns / 1e3, event.duration_ns / 1e3, event.rows, event.inputs,
          event.outputs);
    }
    host::OutputFile file(path);
    file.write(json + "\n]}\n");
    file.commit();
  }

  Linear load_linear(const LinearSource& source) override {
    const int inputs = static_cast<int>(source.weights[0].shape[1]);
    return timed("load_linear", 0, inputs, 0, [&] { return inner_->load_linear(source); });
  }
  Tensor load(const HostTensor& source) override {
    return timed("load", 0, 0, 0, [&] { return inner_->load(source); });
  }
  Tensor tensor(int rows, int cols, DType dtype, Placement placement) override {
    return inner_->tensor(rows, cols, dtype, placement);
  }
  void write(std::span<const float> source, const Tensor& target) override {
    timed("write", target.rows, 0, target.cols, [&] { inner_->write(source, target); });
  }
  void read(const Tensor& source, std::span<float> target) override {
    timed("read", source.rows, source.cols, 0, [&] { inner_->read(source, target); });
  }
  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    timed("embed", out.rows, 0, out.cols, [&] { inner_->embed(table, rows, out); });
  }
  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    timed("linear", x.rows, x.cols, out.cols, [&] { inner_->linear(x, weights, out, epilogue); });
  }
  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    timed("layer_norm", x.rows, x.cols, out.cols, [&] { inner_->layer_norm(x, norm, out); });
  }
  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    timed("rms_norm", x.rows, x.cols, out.cols, [&] { inner_->rms_norm(x, norm, out); });
  }
  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    timed("rope", x.rows, x.cols, x.cols, [&] { inner_->rope(x, head_dim, table, segments); });
  }
  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    timed("append", x.rows, x.cols, x.cols, [&] { inner_->append(x, cache, capacity, segments); });
  }
  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    timed("attention", q.rows, q.cols, out.cols,
          [&] { inner_->attention(q, keys, values, shape, segments, out); });
  }
  void add(const Tensor& x, const Tensor& out) override {
    timed("add", out.rows, x.cols, out.cols, [&] { inner_->add(x, out); });
  }
  void mlp(const Tensor& x, const Mlp& mlp, const Tensor& hidden, const Tensor& out) override {
    timed("mlp", x.rows, x.cols, out.cols, [&] { inner_->mlp(x, mlp, hidden, out); });
  }

 private:
  std::unique_ptr<Ops> inner_;
  Clock::time_point start_ = Clock::now();
  std::vector<Event> events_;
};

}  // namespace

std::unique_ptr<ProfiledOps> make_profiled_ops(std::unique_ptr<Ops> inner) {
  return std::make_unique<ProfiledOpsImpl>(std::move(inner));
}

}  // namespace ocelli::kernels
