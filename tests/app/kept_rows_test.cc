#include "app/kept_rows.h"

#include <gtest/gtest.h>

#include "kernels/backend.h"

namespace ocelli::app {
namespace {

using kernels::DType;
using kernels::Placement;
using kernels::Tensor;

std::vector<float> values_of(kernels::Ops& ops, const Tensor& rows) {
  std::vector<float> values(static_cast<size_t>(rows.rows) * rows.cols);
  ops.read(rows, values);
  return values;
}

TEST(KeptRows, StayUntilNobodyHoldsThem) {
  for (const std::string& name : kernels::backend_names()) {
    const std::unique_ptr<kernels::Ops> ops = kernels::make_backend({name, 1, ""});
    KeptRows kept(*ops);
    const Tensor source = ops->tensor(2, 3, DType::kF32, Placement::kActivation);
    const std::vector<float> first_values = {1, 2, 3, 4, 5, 6};
    const std::vector<float> second_values = {7, 8, 9, 10, 11, 12};
    ops->write(first_values, source);
    Tensor first = kept.keep(source);
    const kernels::Storage* memory = first.storage.get();
    ops->write(second_values, source);
    const Tensor second = kept.keep(source);
    EXPECT_EQ(values_of(*ops, first), first_values) << name;
    EXPECT_EQ(values_of(*ops, second), second_values) << name;

    Tensor part = first.row_range(1, 1);
    first = {};
    EXPECT_NE(kept.keep(source).storage.get(), memory) << name << ": a part is held";
    part = {};
    EXPECT_NE(kept.keep(source.row_range(0, 1)).storage.get(), memory) << name << ": another size";
    EXPECT_EQ(kept.keep(source).storage.get(), memory) << name;
  }
}

}  // namespace
}  // namespace ocelli::app
