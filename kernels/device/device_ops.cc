#include "kernels/device/device_ops.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "host/error.h"
#include "kernels/host_storage.h"
#include "kernels/op_checks.h"
#include "kernels/packing.h"
#include "kernels/pair_packing.h"

namespace ocelli::kernels {
namespace {

using host::Argument;
using host::BufferArgument;
using host::BufferId;
using host::Device;

// The device with its queue. Memory that nobody wants any more is kept until the launches that were
// queued before have run: they may still use it.
class Session {
 public:
  explicit Session(std::unique_ptr<Device> device) : device_(std::move(device)) {}
  ~Session() { release_dropped(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Device& device() const { return *device_; }
  bool has_dropped() const { return !dropped_.empty(); }

  void launch(const char* kernel, std::span<const Argument> arguments) {
    queued_ = true;
    device_->launch(kernel, arguments);
  }
  void wait() {
    device_->wait();
    queued_ = false;
    release_dropped();
  }
  void drop(BufferId buffer) {
    dropped_.push_back(buffer);
    if (!queued_) release_dropped();
  }

 private:
  void release_dropped() noexcept {
    for (const BufferId buffer : dropped_) device_->release(buffer);
    dropped_.clear();
  }

  std::unique_ptr<Device> device_;
  std::vector<BufferId> dropped_;
  bool queued_ = false;
};

// Memory of the device; outlived by the session, which every storage shares.
class DeviceStorage : public Storage {
 public:
  DeviceStorage(std::shared_ptr<Session> session, BufferId id)
      : buffer(id), session_(std::move(session)) {}
  ~DeviceStorage() override { session_->drop(buffer); }
  DeviceStorage(const DeviceStorage&) = delete;
  DeviceStorage& operator=(const DeviceStorage&) = delete;

  const BufferId buffer;

 private:
  std::shared_ptr<Session> session_;
};

BufferId buffer_of(const Tensor& tensor) {
  return static_cast<const DeviceStorage*>(tensor.storage.get())->buffer;
}

// A matrix in as many pieces, by rows, as the banks ask for.
class DeviceLinear : public LinearWeights {
 public:
  struct Piece {
    Tensor weight;
    Tensor scales;  // of a quantised weight
    Tensor bias;
    int first_output;
  };
  using LinearWeights::LinearWeights;
  std::vector<Piece> pieces;
};

// Collects a launch's arguments in the order kernel_set.h gives.
class ArgumentList {
 public:
  ArgumentList& matrix(const Tensor& tensor) {
    list_.emplace_back(
        BufferArgument{buffer_of(tensor), tensor.offset * bytes_per_element(tensor.dtype)});
    list_.emplace_back(static_cast<int64_t>(tensor.dtype));
    return integer(tensor.rows).integer(tensor.cols).integer(tensor.stride);
  }
  // A matrix of no rows: "none". It still names memory, as a board wants every argument set.
  ArgumentList& no_matrix(const Tensor& instead) { return matrix(instead.row_range(0, 0)); }
  ArgumentList& memory(const Tensor& tensor) {
    list_.emplace_back(BufferArgument{buffer_of(tensor), 0});
    return *this;
  }
  ArgumentList& integer(int64_t value) {
    list_.emplace_back(value);
    return *this;
  }
  ArgumentList& number(double value) {
    list_.emplace_back(value);
    return *this;
  }
  ArgumentList& segment(const Segment& s) {
    return integer(s.sequence).integer(s.first_row).integer(s.rows).integer(s.past);
  }
  std::span<const Argument> get() const { return list_; }
  void clear() { list_.clear(); }

 private:
  std::vector<Argument> list_;
};

class DeviceOps : public Ops {
 public:
  explicit DeviceOps(std::unique_ptr<Device> device)
      : session_(std::make_shared<Session>(std::move(device))),
        device_(session_->device()),
        name_(device_.name()) {}

  const char* name() const override { return name_.c_str(); }

  Linear load_linear(const LinearSource& source) override {
    const int outputs = check_linear_source(source);
    auto result =
        std::make_shared<DeviceLinear>(static_cast<int>(source.weights[0].shape[1]), outputs);
    int first = 0;
    for (size_t i = 0; i < source.weights.size(); ++i) {
      load_pieces(source.weights[i], source.biases.empty() ? nullptr : &source.biases[i], first,
                  *result);
      first += static_cast<int>(source.weights[i].shape[0]);
    }
    return result;
  }

  Tensor load(const HostTensor& source) override {
    const int cols = static_cast<int>(source.shape.back());
    const int rows = source.shape.size() == 2 ? static_cast<int>(source.shape[0]) : 1;
    if (!source.quantised()) return upload_new(source.data, rows, cols, source.dtype);
    std::vector<float> values(source.elements());
    convert_to_f32(source, values.data());
    return upload_new(reinterpret_cast<const std::byte*>(values.data()), rows, cols, DType::kF32);
  }

  Tensor tensor(int rows, int cols, DType dtype, Placement placement) override {
    const int64_t bytes = std::max<int64_t>(1, int64_t{rows} * cols * bytes_per_element(dtype));
    if (session_->has_dropped()) session_->wait();
    const BufferId buffer = device_.allocate(bytes, choose_bank(bytes, placement));
    return {std::make_shared<DeviceStorage>(session_, buffer), dtype, rows, cols, cols, 0};
  }

  void write(std::span<const float> source, const Tensor& target) override {
    // Staged in host memory in the tensor's dtype, then sent row by row.
    const Tensor staged = stage(target);
    write_host(source, staged);
    upload(host_address(staged), target);
  }

  void read(const Tensor& source, std::span<float> target) override {
    const Tensor staged = stage(source);
    session_->wait();
    for_each_row(source, host_address(staged), [&](int64_t offset, std::span<std::byte> row) {
      device_.read(buffer_of(source), offset, row);
    });
    read_host(staged, target);
  }

  void embed(const Tensor& table, std::span<const int32_t> rows, const Tensor& out) override {
    check_embed(table, rows, out);
    // The launches in hand may still need the ids of the last call.
    session_->wait();
    if (static_cast<int>(rows.size()) > ids_.cols) {
      ids_ = tensor(1, static_cast<int>(rows.size()), DType::kI32, Placement::kActivation);
    }
    device_.write(buffer_of(ids_), 0, std::as_bytes(rows));
    launch("embed", arguments().matrix(table).matrix(out).memory(ids_));
  }

  void linear(const Tensor& x, const Linear& weights, const Tensor& out,
              Epilogue epilogue) override {
    const auto& w = static_cast<const DeviceLinear&>(*weights);
    check_linear(x, w, out, epilogue);
    OCELLI_CHECK(x.dtype == DType::kF32 && out.dtype == DType::kF32, "{} into {}",
                 kernels::name(x.dtype), kernels::name(out.dtype));
    for (const DeviceLinear::Piece& piece : w.pieces) {
      ArgumentList& list = arguments().matrix(x).matrix(piece.weight);
      const bool quantised = piece.scales.storage != nullptr;
      if (quantised) list.matrix(piece.scales);
      if (piece.bias.storage) {
        list.matrix(piece.bias);
      } else {
        list.no_matrix(piece.weight);
      }
      list.matrix(out.column_range(piece.first_output, piece.weight.rows));
      list.integer(static_cast<int64_t>(epilogue));
      launch(quantised ? "linear_int8" : "linear", list);
    }
  }

  void layer_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_layer_norm(x, norm, out);
    ArgumentList& list = arguments().matrix(x).matrix(norm.weight).matrix(norm.bias).matrix(out);
    launch("layer_norm", list.number(norm.epsilon));
  }

  void rms_norm(const Tensor& x, const Norm& norm, const Tensor& out) override {
    check_rms_norm(x, norm, out);
    launch("rms_norm", arguments().matrix(x).matrix(norm.weight).matrix(out).number(norm.epsilon));
  }

  void rope(const Tensor& x, int head_dim, const Tensor& table,
            std::span<const Segment> segments) override {
    check_rope(x, head_dim, table, segments);
    for (const Segment& segment : segments) {
      launch("rope", arguments().matrix(x).matrix(table).segment(segment).integer(head_dim));
    }
  }

  void append(const Tensor& x, const Tensor& cache, int capacity,
              std::span<const Segment> segments) override {
    check_append(x, cache, capacity, segments);
    for (const Segment& segment : segments) {
      launch("append", arguments().matrix(x).matrix(cache).segment(segment).integer(capacity));
    }
  }

  void attention(const Tensor& q, const Tensor& keys, const Tensor& values,
                 const AttentionShape& shape, std::span<const Segment> segments,
                 const Tensor& out) override {
    check_attention({q, keys, values, out}, shape, segments);
    for (const Segment& segment : segments) {
      ArgumentList& list = arguments().matrix(q).matrix(keys).matrix(values).matrix(out);
      list.segment(segment).integer(shape.heads).integer(shape.kv_heads).integer(shape.head_dim);
      list.integer(shape.causal).integer(shape.capacity).integer(shape.cached);
      launch("attention", list.number(shape.scale));
    }
  }

  void add(const Tensor& x, const Tensor& out) override {
    check_add(x, out);
    launch("add", arguments().matrix(x).matrix(out));
  }

 private:
  // An empty list for the next launch.
  ArgumentList& arguments() {
    arguments_.clear();
    return arguments_;
  }
  void launch(const char* kernel, const ArgumentList& list) {
    session_->launch(kernel, list.get());
  }

  // A dense matrix in host memory of the shape and dtype of `like`, until the next call.
  Tensor stage(const Tensor& like) {
    const int64_t bytes = int64_t{like.rows} * like.cols * bytes_per_element(like.dtype);
    if (bytes > staging_bytes_) {
      staging_ = std::make_shared<HostStorage>(bytes);
      staging_bytes_ = bytes;
    }
    return {staging_, like.dtype, like.rows, like.cols, like.cols, 0};
  }

  // Keys in the last even bank with room, values in the last odd one, so that both are read at
  // once; everything else where most room is left.
  int choose_bank(int64_t bytes, Placement placement) const {
    if (placement == Placement::kKeys || placement == Placement::kValues) {
      const int parity = placement == Placement::kKeys ? 0 : 1;
      for (int bank = device_.banks() - 1; bank >= 0; --bank) {
        if (bank % 2 == parity && device_.free_bytes(bank) >= bytes) return bank;
      }
    }
    return emptiest_bank();
  }

  int emptiest_bank() const {
    int best = 0;
    for (int bank = 1; bank < device_.banks(); ++bank) {
      if (device_.free_bytes(bank) > device_.free_bytes(best)) best = bank;
    }
    return best;
  }

  void load_pieces(const HostTensor& weight, const HostTensor* bias, int first_output,
                   DeviceLinear& result) {
    if (weight.in_pairs()) {
      return load_pieces(UnpackedPairs(weight).tensor(), bias, first_output, result);
    }
    if (weight.layout == Layout::kPanels) {
      return load_pieces(UnpackedInt8(weight).tensor(), bias, first_output, result);
    }
    const int rows = static_cast<int>(weight.shape[0]);
    const int cols = static_cast<int>(weight.shape[1]);
    const int groups = weight.quantised() ? cols / weight.group : 0;
    const int64_t row_bytes = cols * bytes_per_element(weight.dtype);
    const int64_t scale_bytes = groups * bytes_per_element(DType::kF32);
    for (int row = 0; row < rows;) {
      const int64_t room = device_.free_bytes(emptiest_bank()) / (row_bytes + scale_bytes);
      // Where not even one row fits, the device says so.
      const int count = static_cast<int>(std::clamp<int64_t>(room, 1, rows - row));
      DeviceLinear::Piece placed;
      placed.first_output = first_output + row;
      placed.weight = upload_new(weight.data + row * row_bytes, count, cols, weight.dtype);
      if (weight.quantised()) {
        const auto* scales = reinterpret_cast<const std::byte*>(weight.scales);
        placed.scales = upload_new(scales + row * scale_bytes, count, groups, DType::kF32);
      }
      if (bias) {
        const std::byte* part = bias->data + row * bytes_per_element(bias->dtype);
        placed.bias = upload_new(part, 1, count, bias->dtype);
      }
      result.pieces.push_back(std::move(placed));
      row += count;
    }
  }

  // A new tensor for contiguous rows in host memory.
  Tensor upload_new(const std::byte* source, int rows, int cols, DType dtype) {
    Tensor copy = tensor(rows, cols, dtype, Placement::kWeight);
    upload(source, copy);
    return copy;
  }

  // Contiguous rows in host memory to a tensor of any stride.
  void upload(const std::byte* source, const Tensor& target) {
    session_->wait();
    for_each_row(target, const_cast<std::byte*>(source),
                 [&](int64_t offset, std::span<std::byte> row) {
                   device_.write(buffer_of(target), offset, row);
                 });
  }

  // Calls body(byte offset in the buffer, bytes in `host`) for every row, or once for them all when
  // they stand together.
  template <typename Body>
  static void for_each_row(const Tensor& tensor, std::byte* host, const Body& body) {
    const int64_t size = bytes_per_element(tensor.dtype);
    const bool together = tensor.stride == tensor.cols;
    const int runs = together ? (tensor.rows > 0 ? 1 : 0) : tensor.rows;
    const int64_t run_bytes = tensor.cols * size * (together ? tensor.rows : 1);
    for (int r = 0; r < runs; ++r) {
      body((tensor.offset + r * tensor.stride) * size,
           std::span(host + r * run_bytes, static_cast<size_t>(run_bytes)));
    }
  }

  std::shared_ptr<Session> session_;
  Device& device_;
  std::string name_;
  Tensor ids_;
  // Kept between calls, so that the token loop allocates nothing here.
  ArgumentList arguments_;
  std::shared_ptr<HostStorage> staging_ = std::make_shared<HostStorage>(0);
  int64_t staging_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Ops> make_device_ops(std::unique_ptr<Device> device) {
  return std::make_unique<DeviceOps>(std::move(device));
}

}  // namespace ocelli::kernels
