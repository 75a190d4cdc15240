#include "kernels/profiled_ops.h"

#include <fmt/format.h>

#include <chrono>
#include <type_traits>
#include <utility>
#include <vector>

#include "host/output_file.h"
#include "kernels/op_checks.h"

namespace ocelli::kernels {
namespace {

using Clock = std::chrono::steady_clock;

struct Event {
  const char* operation;
  int rows;
  int inputs;
  int outputs;
  int64_t macs = 0;  // multiply-adds of its matrix products
  int64_t begin_ns = 0;
  int64_t duration_ns = 0;
};

int64_t products(int rows, const LinearWeights& weights) {
  return int64_t{rows} * weights.inputs * weights.outputs;
}

// Queries by keys, and weights by values.
int64_t products(const AttentionShape& shape, std::span<const Segment> segments) {
  int64_t pairs = 0;  // of a query and a key that it sees
  for (const Segment& s : segments) {
    const int64_t within =
        shape.causal ? (int64_t{s.rows} + 1) * s.rows / 2 : int64_t{s.rows} * s.rows;
    pairs += int64_t{s.rows} * s.past + within;
  }
  return 2 * pairs * shape.heads * shape.head_dim;
}

std::string json_of(const Event& event) {
  return fmt::format(
      R"({{"name":"{}","cat":"ops","ph":"X","pid":1,"tid":1,"ts":{:.3f},"dur":{:.3f},)"
      R"("args":{{"rows":{},"inputs":{},"outputs":{},"macs":{}}}}})",
      event.operation, event.begin_ns / 1e3, event.duration_ns / 1e3, event.rows, event.inputs,
      event.outputs, event.macs);
}

class ProfiledOpsImpl : public ProfiledOps {
 public:
  using ProfiledOps::ProfiledOps;

  void save(const std::string& path) const override {
    host::OutputFile file(path);
    file.write(
        fmt::format("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
                    R"({{"name":"thread_name","ph":"M","pid":1,"tid":1,"args":{{"name":"{}"}}}})",
                    name()));
    for (const Event& event : events_) file.write(",\n" + json_of(event));
    file.write("\n]}\n");
    file.commit();
  }

  Linear load_linear(const LinearSource& source) override {
    const int outputs = check_linear_source(source);
    const int inputs = static_cast<int>(source.weights[0].shape[1]);
    return timed({"load_linear", 0, inputs, outputs}, [&] { return inner().load_linear(source); });
  }
  Tensor load(const HostTensor& source) override {
    return timed({"load", 0, 0, 0}, [&] { return inner().load(source); });
  }
  void write(std::span<const float> source, const Tensor& target) override {
    timed({"write", target.rows, 0, target.cols}, [&] { inner().write(source, target); });
  }
  void read(const Tensor& source, std::span<float> target) override {
    timed({"read", source.rows, source.cols, 0}, [&] { inner().read(source, target); });
  }
  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    timed({"embed", out.rows, 0, out.cols}, [&] { inner().embed(table, rows, out); });
  }
  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    timed({"linear", x.rows, x.cols, out.cols, products(x.rows, *weights)},
          [&] { inner().linear(x, weights, out, epilogue); });
  }
  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    timed({"layer_norm", x.rows, x.cols, out.cols}, [&] { inner().layer_norm(x, norm, out); });
  }
  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    timed({"rms_norm", x.rows, x.cols, out.cols}, [&] { inner().rms_norm(x, norm, out); });
  }
  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    timed({"rope", x.rows, x.cols, x.cols}, [&] { inner().rope(x, head_dim, table, segments); });
  }
  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    timed({"append", x.rows, x.cols, x.cols},
          [&] { inner().append(x, cache, capacity, segments); });
  }
  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    timed({"attention", q.rows, q.cols, out.cols, products(shape, segments)},
          [&] { inner().attention(q, keys, values, shape, segments, out); });
  }
  void add(const Tensor& x, const Tensor& out) override {
    timed({"add", out.rows, x.cols, out.cols}, [&] { inner().add(x, out); });
  }
  void argmax(const Tensor& x, std::span<float> scratch, std::span<int32_t> columns) override {
    timed({"argmax", x.rows, x.cols, 1}, [&] { inner().argmax(x, scratch, columns); });
  }
  void project(const Tensor& x, const Norm* norm, std::span<const Projection> projections,
               const Tensor& normed) override {
    int outputs = 0;
    int64_t macs = 0;
    for (const Projection& p : projections) {
      outputs += p.out.cols;
      macs += products(x.rows, *p.weights) + (p.gate ? products(x.rows, *p.gate) : 0);
    }
    timed({"project", x.rows, x.cols, outputs, macs},
          [&] { inner().project(x, norm, projections, normed); });
  }
  void linear_sum(std::span<const Term> terms, const Tensor& out) override {
    int inputs = 0;
    int64_t macs = 0;
    for (const Term& term : terms) {
      inputs += term.x.cols;
      macs += products(out.rows, *term.weights);
    }
    timed({"linear_sum", out.rows, inputs, out.cols, macs},
          [&] { inner().linear_sum(terms, out); });
  }
  void append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                      std::span<const Segment> segments) override {
    timed({"append_rotated", qkv.rows, qkv.cols, qkv.cols},
          [&] { inner().append_rotated(qkv, angles, cache, segments); });
  }

 private:
  // Runs `operation` and records in `event` how long it took.
  template <typename Operation>
  std::invoke_result_t<const Operation&> timed(Event event, const Operation& operation) {
    struct Recorder {
      ProfiledOpsImpl& ops;
      Event event;
      ~Recorder() {
        event.duration_ns = ops.now_ns() - event.begin_ns;
        ops.events_.push_back(event);
      }
    };
    event.begin_ns = now_ns();
    const Recorder recorder{*this, event};
    return operation();
  }

  int64_t now_ns() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
  }

  Clock::time_point start_ = Clock::now();
  std::vector<Event> events_;
};

}  // namespace

std::unique_ptr<ProfiledOps> make_profiled_ops(std::unique_ptr<Ops> inner) {
  return std::make_unique<ProfiledOpsImpl>(std::move(inner));
}

}  // namespace ocelli::kernels
