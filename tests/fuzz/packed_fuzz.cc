// Feeds any bytes to the reader of packed models: it must refuse them with host::Error or give
// tensors that lie inside them, and a vocabulary that encodes text. The header's checksum is made
// right first, without which no changed byte would get past it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "app/model.h"
#include "host/error.h"
#include "kernels/host_storage.h"
#include "kernels/packed_file.h"

namespace {

using namespace ocelli;  // NOLINT(google-build-using-namespace): a program of one file

void mend_checksum(std::span<std::byte> file) {
  const kernels::SafetensorsContents contents = kernels::parse_safetensors(file, "fuzz");
  if (contents.tensors.empty()) return;
  const kernels::HostTensor& sums = contents.tensors.back();
  if (sums.bytes() < static_cast<int64_t>(sizeof(uint64_t))) return;
  const size_t header = contents.tensors.front().data - file.data();
  const uint64_t sum = kernels::checksum_of(file.first(header));
  std::memcpy(file.data() + (sums.data - file.data()), &sum, sizeof sum);
}

void check_inside(const kernels::HostTensor& tensor, std::span<const std::byte> file) {
  const auto inside = [&](const std::byte* data, int64_t bytes) {
    return data >= file.data() && bytes >= 0 && bytes <= file.data() + file.size() - data;
  };
  OCELLI_CHECK(inside(tensor.data, tensor.bytes()), "{}", tensor.name);
  if (tensor.quantised()) {
    const auto* scales = reinterpret_cast<const std::byte*>(tensor.scales);
    const auto scale_bytes = tensor.scale_count() * static_cast<int64_t>(sizeof(float));
    OCELLI_CHECK(inside(scales, scale_bytes), "{}", tensor.name);
  } else if (!tensor.in_pairs()) {
    return;
  }
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  kernels::convert_to_f32(tensor, values.data());
}

void check_vocabulary(const kernels::PackedContents& packed) {
  const auto tokenizer = llm::unpack_tokenizer(packed.tokenizer_kind, packed.tokenizer, "fuzz");
  for (const int32_t id : tokenizer->encode("Once <s> upon a time, \xC3\xA9l\xC3\xA8ve 42")) {
    OCELLI_CHECK(id >= 0 && id < tokenizer->size(), "{} of {}", id, tokenizer->size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A mapped file begins at a page; a cache line will do.
  const kernels::HostStorage memory(static_cast<int64_t>(size));
  const std::span<std::byte> file(memory.data(), size);
  if (size > 0) std::memcpy(file.data(), data, size);
  try {
    mend_checksum(file);
    kernels::SafetensorsContents contents = kernels::parse_safetensors(file, "fuzz");
    if (!kernels::is_packed(contents)) return 0;
    const kernels::PackedContents packed = kernels::take_packed(contents, file, "fuzz");
    for (const kernels::HostTensor& tensor : contents.tensors) check_inside(tensor, file);
    for (const auto& part : packed.checked) {
      OCELLI_CHECK(part.bytes.size() <= size, "{}", part.name);
    }
    check_vocabulary(packed);
    app::ModelConfig::parse(host::JsonObject(host::parse_json(packed.config, "fuzz"), "fuzz"));
  } catch (const host::Error&) {  // the one way to refuse
  }
  return 0;
}
