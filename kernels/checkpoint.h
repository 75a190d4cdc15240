// Model files as named, typed views: safetensors, one file or sharded by an index. Other formats
// make theirs from a mapped file (kernels/llama2c.h).
//
// What the format promises is checked before anything is used (kernels/safetensors.h); opening
// reads the headers alone and leaves the tensors' bytes on the disk. Every tensor stands at an
// address that suits its dtype: writers align their data, and a tensor of a file that does not is
// copied; so are misaligned scales.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "host/mapped_file.h"
#include "kernels/packed_file.h"
#include "kernels/tensor.h"

namespace ocelli::kernels {

struct LinearSource;

class Checkpoint {
 public:
  // Opens `path`: a .safetensors file, a .safetensors.index.json with its shards beside it, or a
  // directory that holds model.safetensors or else model.safetensors.index.json. Tensors of a shard
  // that the index does not name are there too, as in transformers; one name in two shards is an
  // error. Throws host::Error naming the file at fault.
  static Checkpoint open(const std::filesystem::path& path);
  // Of one file in another format, whose reader has checked that `tensors` lie in `file` and that
  // no two share a name.
  Checkpoint(std::unique_ptr<host::MappedFile> file, std::vector<HostTensor> tensors);

  // Every tensor by its name in the file.
  const std::map<std::string, HostTensor>& tensors() const { return tensors_; }
  // What was opened, and the files that this came to.
  const std::filesystem::path& path() const { return path_; }
  const std::vector<std::filesystem::path>& files() const { return paths_; }
  // The `__metadata__` entries of the files, later files winning.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // What a packed model holds besides its weights; null for other files.
  const PackedContents* packed() const { return packed_ ? &*packed_ : nullptr; }

  // Renames every tensor whose name starts with `from` so that it starts with `to` instead. Throws
  // host::Error, and changes nothing, when two tensors would share a name.
  void rename_prefix(const std::string& from, const std::string& to);

  // Throws host::Error naming the first float tensors that hold NaN or infinity, or quantised ones
  // whose scales do or whose factors are out of range, with how many such values; reads every byte
  // of these. With `names`, only those tensors are looked at (those a model uses:
  // TensorReader::used()); a name that is not there is passed over.
  void require_finite() const;
  void require_finite(const std::set<std::string>& names) const;

 private:
  Checkpoint() = default;

  void open_index(const std::filesystem::path& index);
  // Looks at every tensor, or at those that `names` holds.
  void require_finite(const std::set<std::string>* names) const;
  // Maps a safetensors file, adds its tensors and returns their names.
  std::set<std::string> add_file(const std::filesystem::path& path);
  // Keeps `tensor` under its name, at an address that suits it; false when the name is taken.
  bool add_tensor(HostTensor tensor);
  // `data`, or where it stands at no multiple of `alignment`, a copy that does.
  const std::byte* aligned(const std::byte* data, int64_t bytes, int64_t alignment);

  std::filesystem::path path_;
  std::vector<std::unique_ptr<host::MappedFile>> files_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;  // of what its file misaligns
  std::vector<std::filesystem::path> paths_;
  std::map<std::string, HostTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  std::optional<PackedContents> packed_;
};

// Reads the tensors that a model needs and collects everything that is wrong with them, so that one
// error names every missing or misshapen tensor.
class TensorReader {
 public:
  explicit TensorReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // The float tensor `name`, of exactly `shape`; one of two or more dimensions may be quantised.
  // When it is missing, misshapen or of another dtype that is noted for finish() and an empty
  // tensor comes back: of `name` and `shape`, but with data == nullptr.
  HostTensor require(const std::string& name, const std::vector<int64_t>& shape);
  // Requires `module`.weight [outputs, inputs] and `module`.bias [outputs], as nn.Linear names
  // them, and adds them to `source`.
  void require_linear(const std::string& module, int64_t outputs, int64_t inputs,
                      LinearSource& source);
  // Requires the matrix `name` [outputs, inputs] and adds it to `source`: a linear without a bias.
  void require_matrix(const std::string& name, int64_t outputs, int64_t inputs,
                      LinearSource& source);
  bool contains(const std::string& name) const;

  // Throws host::Error, one line a problem and at most kMaxProblems of them, when any require()
  // failed.
  void finish() const;

  // Names that require() was asked for, there or not.
  const std::set<std::string>& used() const { return used_; }
  // Names in the checkpoint that no require() asked for, in order.
  std::vector<std::string> unused() const;

  static constexpr size_t kMaxProblems = 20;

 private:
  // Notes when the last matrix of `source` is quantised otherwise than the others are.
  void require_alike(const LinearSource& source);

  const Checkpoint& checkpoint_;
  std::vector<std::string> problems_;
  std::set<std::string> used_;
};

}  // namespace ocelli::kernels
