// The bytes of a packed matrix are where packing.h says.
#include "kernels/packing.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/quantise.h"
#include "tests/host/expect_error.h"
#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// Checks every byte and scale of `packed` against the matrices it was packed from.
void expect_layout(const PackedInt8& packed, const std::vector<Int8Matrix>& matrices) {
  std::vector<std::pair<const Int8Matrix*, int>> rows;
  for (const Int8Matrix& matrix : matrices) {
    for (int r = 0; r < matrix.rows; ++r) rows.emplace_back(&matrix, r);
  }
  const PanelShape& shape = packed.shape();
  const int group = shape.group;
  for (int panel = 0; panel < shape.panels(); ++panel) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(packed.values(panel)) % 64, 0U);
    for (int g = 0; g < shape.groups(); ++g) {
      for (int n = 0; n < 16; ++n) {
        const size_t index = static_cast<size_t>(panel) * 16 + n;
        const bool is_output = index < rows.size();
        ASSERT_EQ(packed.scales(panel)[g * 16 + n],
                  is_output ? rows[index].first->scale(rows[index].second, g) : 0.0F);
        for (int k = 0; k < shape.steps() * 4; ++k) {
          const int found = packed.values(panel)[(g * shape.steps() + k / 4) * 64 + n * 4 + k % 4];
          const bool is_weight = is_output && k < group;
          const int value =
              is_weight ? rows[index].first->value(rows[index].second, g * group + k) : 0;
          ASSERT_EQ(found, value + 128)
              << "panel " << panel << ", group " << g << ", output " << n << ", input " << k;
        }
      }
    }
  }
}

TEST(PackedInt8, EveryByteIsWhereTheHeaderSays) {
  Random random(1);
  for (const int group : {1, 3, 4, 6, 64}) {
    std::vector<Int8Matrix> matrices;
    for (const int outputs : {5, 16, 12}) {
      matrices.push_back(random_int8(random, outputs, 3 * group, group));
    }
    std::vector<std::unique_ptr<StoredInt8>> stored;
    LinearSource source;
    for (const Int8Matrix& matrix : matrices) {
      stored.push_back(std::make_unique<StoredInt8>(matrix, true));
      source.weights.push_back(stored.back()->tensor());
    }
    const PanelShape shape = {33, 3 * group, group};
    ASSERT_EQ(shape.panels(), 3);
    ASSERT_EQ(shape.groups(), 3);
    ASSERT_EQ(shape.steps(), (group + 3) / 4);
    ASSERT_EQ(shape.panel_bytes(), 3 * shape.steps() * 64);
    PackedInt8 packed(shape);
    for (int panel = 0; panel < shape.panels(); ++panel) packed.pack_panel(source, panel);
    expect_layout(packed, matrices);
  }
}

// Floats for matrices of these heights, with memory.
struct Floats {
  std::vector<Matrix> matrices;
  std::vector<std::unique_ptr<Stored>> stored;
  LinearSource source;

  Floats(Random& random, const std::vector<int>& heights, int inputs, DType dtype) {
    for (const int height : heights) {
      matrices.push_back(random.matrix(height, inputs, -2, 2));
      stored.push_back(store(matrices.back(), dtype, true));
      source.weights.push_back(stored.back()->tensor());
    }
  }
};

// What quantise_row makes of a matrix as stored.
Int8Matrix quantised(const HostTensor& matrix, int group) {
  const int rows = static_cast<int>(matrix.shape[0]);
  const int cols = static_cast<int>(matrix.shape[1]);
  std::vector<float> values(matrix.elements());
  convert_to_f32(matrix, values.data());
  Int8Matrix result(rows, cols, group);
  for (int r = 0; r < rows; ++r) {
    const int64_t first = int64_t{r} * cols;
    EXPECT_TRUE(quantise_row(values.data() + first, cols, group, result.values.data() + first,
                             result.scales.data() + first / group));
  }
  return result;
}

TEST(PackedStack, HoldsEachMatrixQuantisedOneBehindTheOther) {
  Random random(2);
  for (const int threads : {1, 3}) {
    host::ThreadPool pool(threads);
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const Floats floats(random, {16, 7, 33}, 70, dtype);
      const PackedStack stack(floats.source, {}, pool);
      ASSERT_EQ(stack.weights().size(), 3U);
      for (size_t i = 0; i < 3; ++i) {
        const HostTensor& weight = stack.weights()[i];
        EXPECT_EQ(weight.layout, Layout::kPanels);
        EXPECT_EQ(weight.group, 70);
        EXPECT_EQ(weight.shape, floats.source.weights[i].shape);
        expect_layout(PackedInt8(weight.panel_shape(), weight.data, weight.scales),
                      {quantised(floats.source.weights[i], 70)});
        if (i == 0) continue;
        const HostTensor& before = stack.weights()[i - 1];
        EXPECT_EQ(weight.data, before.data + before.bytes());
        EXPECT_EQ(weight.scales, before.scales + before.scale_count());
      }
    }
  }
}

TEST(PackedStack, GroupsWhereTheyDivideARow) {
  Random random(3);
  host::ThreadPool pool(1);
  EXPECT_EQ(
      PackedStack(Floats(random, {5}, 192, DType::kF32).source, {64}, pool).weights()[0].group, 64);
  EXPECT_EQ(
      PackedStack(Floats(random, {5}, 588, DType::kF32).source, {64}, pool).weights()[0].group,
      588);
}

TEST(PackedStack, KeepsWhatIsQuantisedAlready) {
  Random random(4);
  host::ThreadPool pool(2);
  const Int8Matrix matrix = random_int8(random, 21, 96, 32);
  const StoredInt8 stored(matrix, true);
  LinearSource source;
  source.weights = {stored.tensor()};
  const PackedStack stack(source, {}, pool);
  const HostTensor& packed = stack.weights()[0];
  expect_layout(PackedInt8(packed.panel_shape(), packed.data, packed.scales), {matrix});

  const UnpackedInt8 unpacked(packed);
  EXPECT_EQ(unpacked.tensor().layout, Layout::kRows);
  EXPECT_EQ(0, std::memcmp(unpacked.tensor().data, matrix.values.data(), matrix.values.size()));
  EXPECT_EQ(0, std::memcmp(unpacked.tensor().scales, matrix.scales.data(),
                           matrix.scales.size() * sizeof(float)));
  std::vector<float> from_rows(stored.tensor().elements());
  std::vector<float> from_panels(from_rows.size());
  convert_to_f32(stored.tensor(), from_rows.data());
  convert_to_f32(packed, from_panels.data());
  EXPECT_EQ(from_panels, from_rows);
}

TEST(PackedStack, RefusesNanAndInfinityByName) {
  Random random(5);
  host::ThreadPool pool(2);
  for (const float wrong : {kNan, kInfinity, -kInfinity}) {
    Matrix matrix = random.matrix(40, 64);
    matrix.at(39, 63) = wrong;
    const auto stored = store(matrix, DType::kF16);
    LinearSource source;
    source.weights = {stored->tensor()};
    EXPECT_TRUE(holds(error_of([&] { PackedStack(source, PanelFormat{}, pool); }), "\"stored\""));
  }
}

}  // namespace
}  // namespace ocelli::kernels
