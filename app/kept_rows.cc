#include "app/kept_rows.h"

#include <algorithm>
#include <numeric>

namespace ocelli::app {

using kernels::Tensor;

Tensor KeptRows::keep(const Tensor& rows) {
  Tensor kept = room_for(rows);
  copy(rows, kept);
  return kept;
}

void KeptRows::copy(const Tensor& rows, const Tensor& out) {
  all_.resize(rows.rows);
  std::iota(all_.begin(), all_.end(), 0);
  ops_.embed(rows, all_, out);
}

Tensor KeptRows::room_for(const Tensor& rows) {
  const auto is_free = [&](const Tensor& t) {
    return t.storage.use_count() == 1 && t.rows == rows.rows && t.cols == rows.cols;
  };
  const auto found = std::ranges::find_if(buffers_, is_free);
  if (found != buffers_.end()) return *found;
  return buffers_.emplace_back(
      ops_.tensor(rows.rows, rows.cols, kernels::DType::kF32, kernels::Placement::kActivation));
}

}  // namespace ocelli::app
