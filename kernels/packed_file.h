// The packed model: one safetensors file with matrices in panels and, beside them, everything else
// that a model needs. docs/weight-format.md describes every byte.
//
// Any reader of safetensors can open it. What this program adds: entries of "__metadata__" that
// begin with "ocelli.", tensors whose names do, and the pairs NAME, NAME.scales of quantised
// matrices.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/checksum.h"
#include "kernels/safetensors.h"
#include "kernels/tensor.h"

namespace ocelli::kernels {

// The version of the format that is written, and the only one that is read.
inline constexpr int kPackedFormat = 2;
// Where every tensor begins in the file, to a multiple.
inline constexpr int64_t kPackedAlignment = 64;

// What a packed model holds besides its weights.
struct PackedContents {
  std::string config;          // the text of config.json
  std::string source;          // JSON: what it was made from, and how
  std::string tokenizer_kind;  // as llm::pack_tokenizer says
  std::span<const std::byte> tokenizer;
  // A stretch of the file and what its checksum should be: the header, then every tensor.
  struct Checked {
    std::string name;  // of the tensor; empty: the header
    std::span<const std::byte> bytes;
    uint64_t checksum = 0;
  };
  std::vector<Checked> checked;

  // Throws host::Error naming the first stretches whose bytes are not those that were written.
  // Reads the whole file.
  void require_intact(const std::string& where) const;
};

// Whether a safetensors file is a packed model: it says which format it has.
bool is_packed(const SafetensorsContents& contents);
// Whether the file begins as a safetensors file does.
bool looks_like_safetensors(std::span<const std::byte> file);

// Takes what is not a weight out of `contents`, which parse_safetensors read from `file`, and turns
// pairs of values and scales into quantised tensors. Checks format, shapes, alignment and the
// header's checksum; throws host::Error that begins with `where`.
PackedContents take_packed(SafetensorsContents& contents, std::span<const std::byte> file,
                           const std::string& where);

// Writes a packed model in two passes: first all is planned, which gives the header and the size,
// then the tensors' bytes are put, in the order of the plan.
class PackedWriter {
 public:
  // A tensor as it is; `dtype` as safetensors writes it. The shape's sizes are not 0.
  void plan(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
            int64_t bytes);
  void plan(const HostTensor& floats);
  // A matrix of bf16 in panels.
  void plan_pairs(const HostTensor& matrix);
  // The values, and the scales, of a quantised matrix. Between those of matrices that are planned
  // one after the other stands nothing.
  void plan_values(const HostTensor& matrix);
  void plan_scales(const HostTensor& matrix);
  // An entry of "__metadata__", `key` without "ocelli.".
  void set_metadata(const std::string& key, const std::string& value);

  // Ends the plan; `write` takes the file's bytes as they come, beginning with the header.
  void begin(std::function<void(std::string_view)> write);
  int64_t file_bytes() const { return file_bytes_; }
  // The next planned tensor's bytes.
  void put(std::span<const std::byte> bytes);
  // Writes the checksums: the file is complete.
  void finish();

 private:
  struct Entry {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    int64_t bytes;
  };
  std::string header() const;
  // Puts the padding that is planned next, if any.
  void put_padding();
  void write(std::span<const std::byte> bytes);

  std::map<std::string, std::string> metadata_;
  std::string pairs_;  // the text of "ocelli.bf16"
  // The texts of "ocelli.int8" and "ocelli.int4", without their braces.
  std::string int8_;
  std::string int4_;
  std::vector<Entry> entries_;
  int64_t data_bytes_ = 0;
  int64_t file_bytes_ = 0;
  size_t next_ = 0;
  int paddings_ = 0;
  std::vector<uint64_t> checksums_;
  std::function<void(std::string_view)> write_;
};

}  // namespace ocelli::kernels
