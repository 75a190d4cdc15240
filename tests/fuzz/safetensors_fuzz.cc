// Feeds any bytes to the safetensors parser: it must refuse them with host::Error or give tensors
// that lie inside them.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "host/error.h"
#include "kernels/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ocelli;
  const auto file = std::as_bytes(std::span(data, size));
  try {
    const kernels::SafetensorsContents contents = kernels::parse_safetensors(file, "fuzz");
    size_t bytes = 0;
    for (const kernels::HostTensor& tensor : contents.tensors) {
      OCELLI_CHECK(tensor.elements() >= 0 && tensor.data >= file.data(), "{}", tensor.name);
      OCELLI_CHECK(static_cast<size_t>(tensor.bytes()) <= size, "{}", tensor.name);
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      kernels::convert_to_f32(tensor.dtype, tensor.data, tensor.elements(), values.data());
      bytes += static_cast<size_t>(tensor.bytes());
    }
    OCELLI_CHECK(bytes < size, "{} bytes of tensors in a file of {}", bytes, size);
  } catch (const host::Error&) {  // the one way to refuse
  }
  return 0;
}
