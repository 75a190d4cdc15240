// The bytes of a packed matrix are where packing.h says.
#include "kernels/packing.h"

#include <gtest/gtest.h>

#include "tests/kernels/ops_testing.h"

namespace ocelli::kernels {
namespace {

// Checks every byte and scale of `packed` against the matrices it was packed from.
void expect_layout(const PackedInt8& packed, const std::vector<Int8Matrix>& matrices) {
  std::vector<std::pair<const Int8Matrix*, int>> rows;
  for (const Int8Matrix& matrix : matrices) {
    for (int r = 0; r < matrix.rows; ++r) rows.emplace_back(&matrix, r);
  }
  const int group = packed.group();
  for (int panel = 0; panel < packed.panels(); ++panel) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(packed.values(panel)) % 64, 0U);
    for (int g = 0; g < packed.groups(); ++g) {
      for (int n = 0; n < 16; ++n) {
        const size_t index = static_cast<size_t>(panel) * 16 + n;
        const bool is_output = index < rows.size();
        ASSERT_EQ(packed.scales(panel)[g * 16 + n],
                  is_output ? rows[index].first->scale(rows[index].second, g) : 0.0F);
        for (int k = 0; k < packed.steps() * 4; ++k) {
          const int found = packed.values(panel)[(g * packed.steps() + k / 4) * 64 + n * 4 + k % 4];
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
    PackedInt8 packed(source, 33);
    ASSERT_EQ(packed.panels(), 3);
    ASSERT_EQ(packed.groups(), 3);
    ASSERT_EQ(packed.steps(), (group + 3) / 4);
    ASSERT_EQ(packed.panel_bytes(), 3 * packed.steps() * 64);
    for (int panel = 0; panel < packed.panels(); ++panel) packed.pack_panel(source, panel);
    expect_layout(packed, matrices);
  }
}

}  // namespace
}  // namespace ocelli::kernels
