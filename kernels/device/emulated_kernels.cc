#include <algorithm>

#include "host/error.h"
#include "kernels/device/kernel_set.h"
#include "kernels/reference/naive.h"

namespace ocelli::kernels {
namespace {

using host::KernelArgument;
using reference::View;

// Takes a launch's arguments one after the other, in the order kernel_set.h gives.
class ArgumentReader {
 public:
  explicit ArgumentReader(std::span<const KernelArgument> arguments) : arguments_(arguments) {}

  std::span<std::byte> memory() { return std::get<std::span<std::byte>>(arguments_[next_++]); }
  int integer() { return static_cast<int>(std::get<int64_t>(arguments_[next_++])); }
  double number() { return std::get<double>(arguments_[next_++]); }

  View matrix() {
    const std::span<std::byte> bytes = memory();
    const auto dtype = static_cast<DType>(integer());
    const int rows = integer();
    const int cols = integer();
    const int64_t stride = std::get<int64_t>(arguments_[next_++]);
    const int64_t elements = rows == 0 ? 0 : (rows - 1) * stride + cols;
    OCELLI_CHECK(elements * bytes_per_element(dtype) <= static_cast<int64_t>(bytes.size()),
                 "[{}, {}] of stride {} in {} bytes", rows, cols, stride, bytes.size());
    return {rows == 0 ? nullptr : bytes.data(), dtype, rows, cols, stride};
  }
  Segment segment() {
    Segment segment;
    segment.sequence = integer();
    segment.first_row = integer();
    segment.rows = integer();
    segment.past = integer();
    return segment;
  }

 private:
  std::span<const KernelArgument> arguments_;
  size_t next_ = 0;
};

void embed(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View table = reader.matrix();
  const View out = reader.matrix();
  const auto* ids = reinterpret_cast<const int32_t*>(reader.memory().data());
  reference::embed(table, {ids, static_cast<size_t>(out.rows)}, out);
}

void linear(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View x = reader.matrix();
  const View weight = reader.matrix();
  const View bias = reader.matrix();
  const View out = reader.matrix();
  reference::linear(x, weight, bias, static_cast<Epilogue>(reader.integer()), out);
}

void linear_int8(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View x = reader.matrix();
  reference::QuantisedViews weight;
  weight.values = reader.matrix();
  weight.scales = reader.matrix();
  const View bias = reader.matrix();
  const View out = reader.matrix();
  reference::linear(x, weight, bias, static_cast<Epilogue>(reader.integer()), out);
}

void layer_norm(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View x = reader.matrix();
  const View weight = reader.matrix();
  const View bias = reader.matrix();
  const View out = reader.matrix();
  reference::layer_norm(x, weight, bias, static_cast<float>(reader.number()), out);
}

void rms_norm(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View x = reader.matrix();
  const View weight = reader.matrix();
  const View out = reader.matrix();
  reference::rms_norm(x, weight, static_cast<float>(reader.number()), out);
}

void rope(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View x = reader.matrix();
  const View table = reader.matrix();
  const Segment segment = reader.segment();
  reference::rope(x, reader.integer(), table, {&segment, 1});
}

void append(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View x = reader.matrix();
  const View cache = reader.matrix();
  const Segment segment = reader.segment();
  reference::append(x, cache, reader.integer(), {&segment, 1});
}

void attention(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  reference::AttentionViews views;
  views.q = reader.matrix();
  views.keys = reader.matrix();
  views.values = reader.matrix();
  views.out = reader.matrix();
  const Segment segment = reader.segment();
  AttentionShape shape;
  shape.heads = reader.integer();
  shape.kv_heads = reader.integer();
  shape.head_dim = reader.integer();
  shape.causal = reader.integer() != 0;
  shape.capacity = reader.integer();
  shape.cached = reader.integer() != 0;
  shape.scale = static_cast<float>(reader.number());
  reference::attention(views, shape, {&segment, 1});
}

void add(std::span<const KernelArgument> arguments) {
  ArgumentReader reader(arguments);
  const View x = reader.matrix();
  reference::add(x, reader.matrix());
}

}  // namespace

std::map<std::string, host::Kernel, std::less<>> emulated_kernels() {
  return {{"embed", embed},           {"linear", linear},       {"linear_int8", linear_int8},
          {"layer_norm", layer_norm}, {"rms_norm", rms_norm},   {"rope", rope},
          {"append", append},         {"attention", attention}, {"add", add}};
}

}  // namespace ocelli::kernels
