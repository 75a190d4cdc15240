// A decorator that runs two backends side by side and compares them after every operation.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace ocelli::kernels {

// Every operation runs on both. When an element of the candidate's result differs from the
// reference's by more than `tolerance` times the largest magnitude in its row (attention of
// Precision::kReduced: by 2^−5 of the largest in its segment), host::Error names
// the operation (counted from the start), its shape and the element. The candidate's result then
// replaces the reference's, so that each operation is judged on its own.
std::unique_ptr<Ops> make_checked_ops(std::unique_ptr<Ops> reference,
                                      std::unique_ptr<Ops> candidate, float tolerance);

}  // namespace ocelli::kernels
