// A picture's rows while they wait for their prompt's turn.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace ocelli::app {

class KeptRows {
 public:
  // `ops` must outlive this.
  explicit KeptRows(kernels::Ops& ops) : ops_(ops) {}

  // A copy of fp32 rows. Its memory serves others once nobody holds the copy or a part of it: new
  // memory costs a picture of 729 rows 5 to 12 ms, as the system gives it page by page.
  kernels::Tensor keep(const kernels::Tensor& rows);
  // Such a copy in memory of the caller's, of the rows' shape.
  void copy(const kernels::Tensor& rows, const kernels::Tensor& out);

 private:
  kernels::Tensor room_for(const kernels::Tensor& rows);

  kernels::Ops& ops_;
  std::vector<kernels::Tensor> buffers_;
  std::vector<int32_t> all_;  // 0, 1, …
};

}  // namespace ocelli::app
