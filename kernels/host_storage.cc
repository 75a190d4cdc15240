#include "kernels/host_storage.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "host/error.h"

namespace ocelli::kernels {
namespace {

constexpr int64_t kCacheLine = 64;
// Of memory of some such pages the kernel is asked to make some: activations that stream through
// the caches miss fewer translations (SigLIP's products: 1.1 times as fast).
constexpr int64_t kHugePage = int64_t{2} << 20;

}  // namespace

HostStorage::HostStorage(int64_t bytes, bool cache) : owned_(true) {
  const int64_t alignment = bytes >= 2 * kHugePage ? kHugePage : kCacheLine;
  const int64_t rounded = (bytes + alignment - 1) / alignment * alignment;
  data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (!data_ && rounded > 0) host::fail("out of memory: {} bytes could not be allocated", bytes);
  // A hint; where it is refused, pages are small.
  if (alignment == kHugePage && !cache) madvise(data_, rounded, MADV_HUGEPAGE);
}

HostStorage::HostStorage(const std::byte* borrowed) : data_(const_cast<std::byte*>(borrowed)) {
}

HostStorage::~HostStorage() {
  if (owned_) std::free(data_);
}

void QuantisedTable::read_row(const Tensor& table, int row, float* out) {
  const HostTensor& source = static_cast<const QuantisedTable*>(table.storage.get())->source_;
  const int64_t first = table.offset + row * table.stride;
  convert_to_f32(source.dtype, source.data + first, table.cols, out);
  for (int i = 0; i < table.cols; i += source.group) {
    const float scale = scale_of(source, (first + i) / source.group);
    for (int k = i; k < i + source.group; ++k) out[k] *= scale;
  }
}

std::byte* host_address(const Tensor& tensor) {
  return static_cast<const HostStorage*>(tensor.storage.get())->data() +
         tensor.offset * bytes_per_element(tensor.dtype);
}

void prefer_huge_pages(const Tensor& tensor) {
  const auto first = reinterpret_cast<uintptr_t>(host_address(tensor));
  const uintptr_t end =
      first + static_cast<uintptr_t>(tensor.rows * tensor.stride * bytes_per_element(tensor.dtype));
  const uintptr_t whole = (first + kHugePage - 1) / kHugePage * kHugePage;
  if (whole + kHugePage > end) return;
  madvise(reinterpret_cast<void*>(whole), (end - whole) / kHugePage * kHugePage, MADV_HUGEPAGE);
}

Tensor host_tensor(int rows, int cols, DType dtype, bool cache) {
  const int64_t bytes = int64_t{rows} * cols * bytes_per_element(dtype);
  return {std::make_shared<HostStorage>(bytes, cache), dtype, rows, cols, cols, 0};
}

void write_host(std::span<const float> source, const Tensor& target) {
  OCELLI_CHECK(static_cast<int64_t>(source.size()) == int64_t{target.rows} * target.cols,
               "{} values into [{}, {}]", source.size(), target.rows, target.cols);
  if (source.empty()) return;  // memcpy wants an address even for nothing
  std::byte* data = host_address(target);
  for (int r = 0; r < target.rows; ++r) {
    const float* row = source.data() + int64_t{r} * target.cols;
    std::byte* out = data + r * target.stride * bytes_per_element(target.dtype);
    if (target.dtype == DType::kF32) {
      std::memcpy(out, row, target.cols * sizeof(float));
      continue;
    }
    if (target.dtype == DType::kI8) {
      std::transform(row, row + target.cols, reinterpret_cast<int8_t*>(out),
                     [](float value) { return static_cast<int8_t>(value); });
      continue;
    }
    const bool f16 = target.dtype == DType::kF16;
    OCELLI_CHECK(f16 || target.dtype == DType::kBF16, "cannot write {}",
                 kernels::name(target.dtype));
    for (int c = 0; c < target.cols; ++c) {
      const uint16_t half = f16 ? f32_to_f16(row[c]) : f32_to_bf16(row[c]);
      std::memcpy(out + c * sizeof half, &half, sizeof half);
    }
  }
}

void read_host(const Tensor& source, std::span<float> target) {
  OCELLI_CHECK(static_cast<int64_t>(target.size()) == int64_t{source.rows} * source.cols,
               "[{}, {}] into {} values", source.rows, source.cols, target.size());
  const std::byte* data = host_address(source);
  for (int r = 0; r < source.rows; ++r) {
    convert_to_f32(source.dtype, data + r * source.stride * bytes_per_element(source.dtype),
                   source.cols, target.data() + int64_t{r} * source.cols);
  }
}

Tensor HostOps::load(const HostTensor& source) {
  OCELLI_CHECK(source.shape.size() == 1 || source.shape.size() == 2, "{} is {}", source.name,
               shape_text(source.shape));
  const int cols = static_cast<int>(source.shape.back());
  const int rows = source.shape.size() == 2 ? static_cast<int>(source.shape[0]) : 1;
  if (source.quantised() && source.layout == Layout::kRows) {
    return {std::make_shared<QuantisedTable>(source), source.dtype, rows, cols, cols, 0};
  }
  if (source.quantised()) {
    Tensor copy = host_tensor(rows, cols, DType::kF32);
    convert_to_f32(source, reinterpret_cast<float*>(host_address(copy)));
    return copy;
  }
  return {std::make_shared<HostStorage>(source.data), source.dtype, rows, cols, cols, 0};
}

Tensor HostOps::tensor(int rows, int cols, DType dtype, Placement placement) {
  return host_tensor(rows, cols, dtype,
                     placement == Placement::kKeys || placement == Placement::kValues);
}

void HostOps::write(std::span<const float> source, const Tensor& target) {
  write_host(source, target);
}

void HostOps::read(const Tensor& source, std::span<float> target) {
  read_host(source, target);
}

}  // namespace ocelli::kernels
