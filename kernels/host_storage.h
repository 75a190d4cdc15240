// Plain host memory behind a Tensor, shared by the backends that compute on the host.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "kernels/ops.h"

namespace ocelli::kernels {

class HostStorage : public Storage {
 public:
  // Owns `bytes` of memory, aligned to a cache line; pages are touched only when they are used,
  // those of a `cache` of keys or values one by one: of a head's run a conversation may fill the
  // beginning only.
  explicit HostStorage(int64_t bytes, bool cache = false);
  // Refers to memory that outlives it, which is never written (a mapped weight).
  explicit HostStorage(const std::byte* borrowed);
  ~HostStorage() override;
  HostStorage(const HostStorage&) = delete;
  HostStorage& operator=(const HostStorage&) = delete;

  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  bool owned_ = false;
};

// A quantised matrix in rows, where it stands, and its scales: a tensor of kI8 that embed() reads.
class QuantisedTable : public HostStorage {
 public:
  explicit QuantisedTable(const HostTensor& source) : HostStorage(source.data), source_(source) {}

  // out ← row `row` of a tensor that load() made, as fp32.
  static void read_row(const Tensor& table, int row, float* out);

 private:
  const HostTensor source_;
};

// The address of element (0, 0) of a tensor in host memory.
std::byte* host_address(const Tensor& tensor);

// A hint: of this memory all will be used.
void prefer_huge_pages(const Tensor& tensor);

// A new matrix in host memory, with undefined contents.
Tensor host_tensor(int rows, int cols, DType dtype, bool cache = false);
// Ops::write and Ops::read for tensors in host memory.
void write_host(std::span<const float> source, const Tensor& target);
void read_host(const Tensor& source, std::span<float> target);

// The parts of Ops that are the same for every backend in host memory.
class HostOps : public Ops {
 public:
  // Reads in place what is in rows; a quantised matrix in panels becomes fp32.
  Tensor load(const HostTensor& source) override;
  Tensor tensor(int rows, int cols, DType dtype, Placement placement) override;
  void write(std::span<const float> source, const Tensor& target) override;
  void read(const Tensor& source, std::span<float> target) override;
};

}  // namespace ocelli::kernels
