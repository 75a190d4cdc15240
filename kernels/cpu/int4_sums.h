// What a product with int4 needs of a quantised row beside its values.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/panel_shape.h"

namespace ocelli::kernels::cpu {

// Puts the sums of the values that share a factor into the row `x`, and zeros behind its values up
// to the end of the last line.
void add_sums(const QuantisedRows& x, const PanelShape& shape);

}  // namespace ocelli::kernels::cpu
