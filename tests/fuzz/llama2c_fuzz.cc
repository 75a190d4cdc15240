// Feeds any bytes, as a file, to the reader of llama2.c models: it must refuse them with
// host::Error or give tensors that lie inside them.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "host/error.h"
#include "kernels/llama2c.h"

namespace {

using namespace ocelli;  // NOLINT(google-build-using-namespace): a program of one file

// A file in memory that holds these bytes, for a scope.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
    OCELLI_CHECK(fd_ >= 0, "{} bytes", size);
    const bool written = size == 0 || write(fd_, data, size) == static_cast<ssize_t>(size);
    OCELLI_CHECK(written, "{} bytes", size);
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

// Reads the first and last byte and scale of a tensor; returns how many bytes it has in the file.
size_t touch(const kernels::HostTensor& tensor) {
  const int64_t elements = tensor.elements();
  OCELLI_CHECK(elements > 0, "{} of {}", tensor.name, kernels::shape_text(tensor.shape));
  size_t bytes = static_cast<size_t>(tensor.bytes());
  volatile auto sum = std::to_integer<int>(tensor.data[0] ^ tensor.data[bytes - 1]);
  if (tensor.quantised()) {
    OCELLI_CHECK(tensor.shape.size() == 2 && tensor.shape[1] % tensor.group == 0, "{} in groups {}",
                 tensor.name, tensor.group);
    const int64_t scales = elements / tensor.group;
    volatile float scale_sum = tensor.scales[0] + tensor.scales[scales - 1];
    static_cast<void>(scale_sum);
    bytes += static_cast<size_t>(scales) * sizeof(float);
  }
  static_cast<void>(sum);
  return bytes;
}

void check(const kernels::Llama2cFile& model, size_t size) {
  const kernels::Llama2cHeader& header = model.header;
  const int64_t dim = header.dim;
  OCELLI_CHECK(
      dim % header.n_heads == 0 && header.n_heads % header.n_kv_heads == 0 && header.seq_len > 0,
      "{} / {} / {}", dim, header.n_heads, header.n_kv_heads);
  const int64_t kv_width = dim / header.n_heads * header.n_kv_heads;
  kernels::TensorReader reader(model.checkpoint);
  reader.require("model.embed_tokens.weight", {header.vocab_size, dim});
  for (int i = 0; i < header.n_layers; ++i) {
    reader.require(fmt::format("model.layers.{}.self_attn.v_proj.weight", i), {kv_width, dim});
    reader.require(fmt::format("model.layers.{}.mlp.down_proj.weight", i),
                   {dim, header.hidden_dim});
  }
  reader.finish();
  size_t bytes = 0;
  for (const auto& [name, tensor] : model.checkpoint.tensors()) bytes += touch(tensor);
  OCELLI_CHECK(bytes < size, "{} bytes of tensors in a file of {}", bytes, size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  try {
    const kernels::Llama2cFile model = kernels::open_llama2c(file.path());
    check(model, size);
    model.checkpoint.require_finite();
  } catch (const host::Error&) {  // the one way to refuse
  }
  return 0;
}
