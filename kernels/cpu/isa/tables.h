// The tables that are compiled in; which of them this machine can run is dispatch.cc's business.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace ocelli::kernels::cpu {

extern const KernelTable kScalarTable;
extern const KernelTable kAvx2Table;    // x86-64 only
extern const KernelTable kAvx512Table;  // x86-64 only

}  // namespace ocelli::kernels::cpu
