#include "kernels/tensor.h"

#include <bit>
#include <cstring>

#include "host/error.h"

namespace ocelli::kernels {
namespace {

constexpr uint32_t kF32Infinity = 0x7F800000;

// Reads `elements` values of type T and hands each to `to_float`. memcpy, because the bytes of a
// file need not be aligned; compilers make plain vector loads of it.
template <typename T, typename ToFloat>
void convert(const std::byte* source, int64_t elements, float* out, ToFloat to_float) {
  for (int64_t i = 0; i < elements; ++i) {
    T value;
    std::memcpy(&value, source + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[i] = to_float(value);
  }
}

template <typename T>
void convert_integers(const std::byte* source, int64_t elements, float* out) {
  convert<T>(source, elements, out, [](T value) { return static_cast<float>(value); });
}

}  // namespace

const char* name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kI8:
      return "i8";
    case DType::kU8:
      return "u8";
    case DType::kI32:
      return "i32";
    case DType::kI64:
      return "i64";
  }
  return "unknown";
}

int64_t HostTensor::elements() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

int64_t HostTensor::bytes() const {
  if (in_pairs()) return pair_shape().value_bytes();
  if (layout == Layout::kPanels) return panel_shape().value_bytes();
  return elements() * bytes_per_element(dtype);
}

int64_t HostTensor::scale_count() const {
  return layout == Layout::kPanels ? panel_shape().scales() : elements() / group;
}

PanelShape HostTensor::panel_shape() const {
  const int64_t outputs = shape.empty() ? 1 : shape[0];
  return {static_cast<int>(outputs), static_cast<int>(elements() / outputs), group, factor_group};
}

PairShape HostTensor::pair_shape() const {
  const int64_t outputs = shape.empty() ? 1 : shape[0];
  return {static_cast<int>(outputs), static_cast<int>(elements() / outputs)};
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void convert_to_f32(DType dtype, const std::byte* source, int64_t elements, float* out) {
  switch (dtype) {
    case DType::kF32:
      if (elements > 0) std::memcpy(out, source, static_cast<size_t>(elements) * sizeof(float));
      return;
    case DType::kF16:
      return convert<uint16_t>(source, elements, out, f16_to_f32);
    case DType::kBF16:
      return convert<uint16_t>(source, elements, out, bf16_to_f32);
    case DType::kI8:
      return convert_integers<int8_t>(source, elements, out);
    case DType::kU8:
      return convert_integers<uint8_t>(source, elements, out);
    case DType::kI32:
      return convert_integers<int32_t>(source, elements, out);
    case DType::kI64:
      return convert_integers<int64_t>(source, elements, out);
  }
}

namespace {

// A matrix in panels to fp32, row by row.
void convert_panels(const HostTensor& source, float* out) {
  const PanelShape shape = source.panel_shape();
  for (int n = 0; n < shape.outputs; ++n) {
    for (int i = 0; i < shape.inputs; ++i) {
      *out++ = static_cast<float>(panel_value(source, shape, n, i)) *
               scale_of(source, shape.scale_at(n, i / shape.group));
    }
  }
}

void convert_pairs(const HostTensor& source, float* out) {
  const PairShape shape = source.pair_shape();
  for (int n = 0; n < shape.outputs; ++n) {
    for (int i = 0; i < shape.inputs; ++i) {
      uint16_t value;
      std::memcpy(&value, source.data + shape.value_at(n, i) * int64_t{sizeof value}, sizeof value);
      *out++ = bf16_to_f32(value);
    }
  }
}

}  // namespace

void convert_to_f32(const HostTensor& source, float* out) {
  if (source.in_pairs()) return convert_pairs(source, out);
  if (source.layout == Layout::kPanels) return convert_panels(source, out);
  convert_to_f32(source.dtype, source.data, source.elements(), out);
  if (!source.quantised()) return;
  for (int64_t first = 0; first < source.elements(); first += source.group) {
    const float scale = scale_of(source, first / source.group);
    for (int64_t i = first; i < first + source.group; ++i) out[i] *= scale;
  }
}

int panel_value(const HostTensor& panels, const PanelShape& shape, int output, int input) {
  if (!shape.is_int4())
    return std::to_integer<int>(panels.data[shape.value_at(output, input)]) - 128;
  const int byte = std::to_integer<int>(panels.data[shape.nibble_at(output, input)]);
  const int nibble = input / kStepInputs % 2 == 0 ? byte & 15 : byte >> 4;
  const auto factor = std::to_integer<int8_t>(panels.data[shape.factor_at(output, input)]);
  return static_cast<int8_t>(factor * (nibble - 8));  // a factor that is out of range wraps
}

float scale_of(const HostTensor& source, int64_t index) {
  float scale;
  std::memcpy(&scale, reinterpret_cast<const std::byte*>(source.scales) + index * 4, sizeof scale);
  return scale;
}

float f16_to_f32(uint16_t value) {
  // The three cases are selected without branches, so that loops over this vectorise.
  const uint32_t magnitude = value & 0x7FFFU;
  const uint32_t exponent = magnitude & 0x7C00U;
  const uint32_t rebias = exponent == 0x7C00U ? 224U << 23 : 112U << 23;  // 31 -> 255, else +112
  const uint32_t normal = (magnitude << 13) + rebias;
  const auto subnormal =
      std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24F);
  const uint32_t sign = (value & 0x8000U) << 16;
  return std::bit_cast<float>(sign | (exponent == 0 ? subnormal : normal));
}

uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > kF32Infinity) {  // NaN: keep the top of the payload, made quiet
    return static_cast<uint16_t>(sign | 0x7E00U | ((magnitude >> 13) & 0x3FFU));
  }
  if (magnitude >= std::bit_cast<uint32_t>(65520.0F)) {  // from here on infinity is nearest
    return static_cast<uint16_t>(sign | 0x7C00U);
  }
  if (magnitude < std::bit_cast<uint32_t>(0x1p-14F)) {
    // 0.5 has a last place of 2^-24, the unit of f16's subnormals: the addition rounds for us.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3F000000U));
  }
  const uint32_t even = (magnitude >> 13) & 1U;
  return static_cast<uint16_t>(sign | ((magnitude + 0xFFFU + even - (112U << 23)) >> 13));
}

float bf16_to_f32(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFU) > kF32Infinity ? 0x7FC0U : nearest);
}

Tensor Tensor::row_range(int first, int count) const {
  OCELLI_CHECK(first >= 0 && count >= 0 && first <= rows && count <= rows - first,
               "rows {} + {} of {}", first, count, rows);
  Tensor view = *this;
  view.rows = count;
  view.offset += first * stride;
  return view;
}

Tensor Tensor::column_range(int first, int count) const {
  OCELLI_CHECK(first >= 0 && count >= 0 && first <= cols && count <= cols - first,
               "columns {} + {} of {}", first, count, cols);
  Tensor view = *this;
  view.cols = count;
  view.offset += first;
  return view;
}

}  // namespace ocelli::kernels
