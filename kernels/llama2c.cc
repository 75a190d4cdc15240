#include "kernels/llama2c.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "host/error.h"
#include "host/mapped_file.h"

namespace ocelli::kernels {
namespace {

namespace fs = std::filesystem;
using host::fail;

constexpr uint32_t kMagic = 0x616B3432;  // versions 1 and 2 begin with it, version 0 with dim
constexpr size_t kMagicBytes = 4;
constexpr size_t kNumbers = 7;
constexpr size_t kBareHeaderBytes = kNumbers * sizeof(int32_t);  // version 0
constexpr size_t kHeaderBytes = 256;                             // versions 1 and 2
constexpr size_t kVersionAt = 4;
constexpr size_t kNumbersAt = 8;
constexpr size_t kSharedClassifierAt = kNumbersAt + kBareHeaderBytes;
constexpr size_t kGroupSizeAt = kSharedClassifierAt + 1;  // packed: not aligned

// The header's numbers in its order, each from 1 to `largest`: far above any published Llama, and
// so low that the tensors' bytes add up to less than 2^52.
struct Number {
  const char* name;
  int Llama2cHeader::*member;
  int largest;
};
constexpr std::array<Number, kNumbers> kNumberOf = {{
    {"dim", &Llama2cHeader::dim, 1 << 17},
    {"hidden_dim", &Llama2cHeader::hidden_dim, 1 << 20},
    {"n_layers", &Llama2cHeader::n_layers, 1 << 10},
    {"n_heads", &Llama2cHeader::n_heads, 1 << 17},
    {"n_kv_heads", &Llama2cHeader::n_kv_heads, 1 << 17},
    {"vocab_size", &Llama2cHeader::vocab_size, 1 << 24},
    {"seq_len", &Llama2cHeader::seq_len, 1 << 24},
}};
constexpr size_t kVocabSize = 5;  // in kNumberOf

// The little-endian number at byte `at`, which the caller has checked to be there.
int32_t read_int(std::span<const std::byte> file, size_t at) {
  int32_t value = 0;
  std::memcpy(&value, file.data() + at, sizeof(value));
  return value;
}

// Reads the seven numbers from byte `at` into `header`. Throws Error unless each is in its range.
void read_numbers(std::span<const std::byte> file, size_t at, const std::string& where,
                  Llama2cHeader& header) {
  const Number* wrong = nullptr;
  int32_t wrong_value = 0;
  int wrongs = 0;
  for (size_t i = 0; i < kNumbers; ++i) {
    const int32_t stored = read_int(file, at + i * sizeof(int32_t));
    // Version 0 says in the sign whether there is a classifier. 64 bits hold the lowest one's size.
    const bool sign_is_flag = header.version == 0 && i == kVocabSize;
    if (sign_is_flag) header.shared_classifier = stored > 0;
    const int64_t value = sign_is_flag ? std::abs(int64_t{stored}) : int64_t{stored};
    if (value >= 1 && value <= kNumberOf[i].largest) {
      header.*kNumberOf[i].member = static_cast<int>(value);
    } else if (++wrongs == 1) {
      wrong = &kNumberOf[i];
      wrong_value = stored;
    }
  }
  if (wrongs == 0) return;
  // No magic tells version 0 from other files; a damaged or odd model has one such number.
  if (header.version == 0 && wrongs > 1) {
    fail("{}: does not look like a llama2.c file: its {} would be {}", where, wrong->name,
         wrong_value);
  }
  fail("{}: its {} is {}, wanted 1 to {}", where, wrong->name, wrong_value, wrong->largest);
}

// What versions 1 and 2 store behind the seven numbers.
void read_tail(std::span<const std::byte> file, const std::string& where, Llama2cHeader& header) {
  const int shared = std::to_integer<int>(file[kSharedClassifierAt]);
  if (shared > 1) fail("{}: its shared_classifier is {}, wanted 0 or 1", where, shared);
  header.shared_classifier = shared == 1;
  if (header.version != 2) return;
  header.group_size = read_int(file, kGroupSizeAt);
  if (header.group_size < 1) {
    fail("{}: its group_size is {}, wanted at least 1", where, header.group_size);
  }
  if (header.dim % header.group_size != 0 || header.hidden_dim % header.group_size != 0) {
    fail("{}: its group_size {} does not divide both its dim {} and its hidden_dim {}", where,
         header.group_size, header.dim, header.hidden_dim);
  }
}

// Throws Error unless the heads multiply out.
void check_heads(const Llama2cHeader& header, const std::string& where) {
  if (header.dim % header.n_heads != 0) {
    fail("{}: its dim {} is not a multiple of its n_heads {}", where, header.dim, header.n_heads);
  }
  if (header.n_heads % header.n_kv_heads != 0) {
    fail("{}: its n_heads {} is not a multiple of its n_kv_heads {}", where, header.n_heads,
         header.n_kv_heads);
  }
  if (header.dim / header.n_heads % 2 != 0) {
    fail("{}: its heads have {} dimensions (dim {}, n_heads {}), which cannot be rotated in pairs",
         where, header.dim / header.n_heads, header.dim, header.n_heads);
  }
}

Llama2cHeader read_header(std::span<const std::byte> file, const std::string& where) {
  Llama2cHeader header;
  const bool magic =
      file.size() >= kMagicBytes && static_cast<uint32_t>(read_int(file, 0)) == kMagic;
  if (magic) {
    if (file.size() < kHeaderBytes) {
      fail("{}: is truncated: {} bytes, its header alone takes {}", where, file.size(),
           kHeaderBytes);
    }
    header.version = read_int(file, kVersionAt);
    if (header.version != 1 && header.version != 2) {
      fail(
          "{}: is a llama2.c file of version {}; versions 1 and 2 are read, and version 0, which "
          "does not begin with the magic number {:#x}",
          where, header.version, kMagic);
    }
  } else if (file.size() < kBareHeaderBytes) {
    fail("{}: does not look like a llama2.c file: {} bytes, a header alone takes {}", where,
         file.size(), kBareHeaderBytes);
  }
  read_numbers(file, magic ? kNumbersAt : 0, where, header);
  check_heads(header, where);
  if (magic) read_tail(file, where, header);
  return header;
}

// Tensors of one kind, which stand in the file one after another: one, or one for every layer.
struct Block {
  std::string name;  // {} in it stands for the layer; empty: not a tensor, but skipped
  int count;
  std::vector<int64_t> shape;  // two sizes: a matrix, which version 2 quantises

  bool is_quantised(const Llama2cHeader& header) const {
    return header.version == 2 && shape.size() == 2;
  }
  int64_t elements() const {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  }
  // Of one tensor, with its scales.
  int64_t bytes(const Llama2cHeader& header) const {
    constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
    if (!is_quantised(header)) return elements() * kFloat;
    return elements() + elements() / header.group_size * kFloat;
  }
};

// Everything behind the header, in the file's order.
std::vector<Block> blocks_of(const Llama2cHeader& header) {
  const int64_t dim = header.dim;
  const int64_t hidden = header.hidden_dim;
  const int64_t kv_width = dim / header.n_heads * header.n_kv_heads;
  const int layers = header.n_layers;
  const Block embed = {"model.embed_tokens.weight", 1, {header.vocab_size, dim}};
  const Block attention_norm = {"model.layers.{}.input_layernorm.weight", layers, {dim}};
  const Block ffn_norm = {"model.layers.{}.post_attention_layernorm.weight", layers, {dim}};
  const Block norm = {"model.norm.weight", 1, {dim}};
  const std::vector<Block> attention = {
      {"model.layers.{}.self_attn.q_proj.weight", layers, {dim, dim}},
      {"model.layers.{}.self_attn.k_proj.weight", layers, {kv_width, dim}},
      {"model.layers.{}.self_attn.v_proj.weight", layers, {kv_width, dim}},
      {"model.layers.{}.self_attn.o_proj.weight", layers, {dim, dim}}};
  const std::vector<Block> mlp = {
      {"model.layers.{}.mlp.gate_proj.weight", layers, {hidden, dim}},  // w1
      {"model.layers.{}.mlp.down_proj.weight", layers, {dim, hidden}},  // w2
      {"model.layers.{}.mlp.up_proj.weight", layers, {hidden, dim}}};   // w3
  std::vector<Block> blocks;
  const auto append = [&](const std::vector<Block>& more) {
    blocks.insert(blocks.end(), more.begin(), more.end());
  };
  if (header.version == 0) {
    append({embed, attention_norm});
    append(attention);
    append({ffn_norm});
    append(mlp);
    // The rotary cosines and sines, which run.c does not read any more.
    append({norm, {"", 2, {int64_t{header.seq_len} * (dim / header.n_heads / 2)}}});
  } else {
    append({attention_norm, ffn_norm, norm, embed});
    append(attention);
    append(mlp);
  }
  if (!header.shared_classifier) append({{"lm_head.weight", 1, {header.vocab_size, dim}}});
  return blocks;
}

// Throws Error unless `size` is what the blocks come to.
void check_size(size_t size, size_t header_bytes, const std::vector<Block>& blocks,
                const Llama2cHeader& header, const std::string& where) {
  size_t wanted = header_bytes;
  for (const Block& block : blocks) {
    wanted += static_cast<size_t>(block.count * block.bytes(header));
  }
  if (size < wanted) {
    fail("{}: is truncated: {} bytes, its header asks for {}", where, size, wanted);
  }
  if (size > wanted) {
    fail("{}: has {} bytes more than the {} its header asks for", where, size - wanted, wanted);
  }
}

// The `index`-th tensor of a block, whose bytes begin at `data`.
HostTensor tensor_at(const std::byte* data, const Block& block, int index,
                     const Llama2cHeader& header) {
  HostTensor tensor;
  tensor.name = fmt::format(fmt::runtime(block.name), index);
  tensor.shape = block.shape;
  tensor.data = data;
  if (block.is_quantised(header)) {
    tensor.dtype = DType::kI8;
    tensor.scales = reinterpret_cast<const float*>(data + tensor.elements());
    tensor.group = header.group_size;
  }
  return tensor;
}

}  // namespace

Llama2cFile open_llama2c(const fs::path& path) {
  auto file = std::make_unique<host::MappedFile>(path);
  const std::span<const std::byte> bytes = file->bytes();
  const std::string where = path.string();
  const Llama2cHeader header = read_header(bytes, where);
  const std::vector<Block> blocks = blocks_of(header);
  const size_t header_bytes = header.version == 0 ? kBareHeaderBytes : kHeaderBytes;
  check_size(bytes.size(), header_bytes, blocks, header, where);

  std::vector<HostTensor> tensors;
  const std::byte* place = bytes.data() + header_bytes;
  for (const Block& block : blocks) {
    for (int i = 0; i < block.count; ++i) {
      if (!block.name.empty()) tensors.push_back(tensor_at(place, block, i, header));
      place += block.bytes(header);
    }
  }
  return {header, Checkpoint(std::move(file), std::move(tensors))};
}

}  // namespace ocelli::kernels
