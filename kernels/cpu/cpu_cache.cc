#include "kernels/cpu/cpu_cache.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/cpu/tasks.h"
#include "kernels/host_storage.h"

namespace ocelli::kernels::cpu {
namespace {

// Rows that are appended to a cache together, at most.
constexpr int kAppendedTogether = 16;

}  // namespace

CacheWriter::Call CacheWriter::call_of(std::span<const Segment> segments, int heads, int head_dim,
                                       int capacity) {
  Call call = {segments, heads, head_dim, capacity};
  for (const Segment& segment : segments) {
    call.rows += segment.rows;
    call.begins = call.begins || segment.past == 0;
  }
  return call;
}

void CacheWriter::make_ready(const Call& call, const Tensor& cache) {
  // Several sequences have caches made to measure, so large that in small pages their addresses
  // alone cost a fifth of the time that reading them takes.
  const bool several = cache.rows > int64_t{call.heads} * call.capacity;
  if (call.begins && several) prefer_huge_pages(cache);
}

template <typename Task>
void CacheWriter::each_block(const Call& call, int cols, const Task& task) {
  // Some rows at a time, so that a head's are written in one run.
  const int together = std::clamp(call.rows / (2 * pool_.size()), 1, kAppendedTogether);
  const bool small = int64_t{call.rows} * cols < kSmallPass;
  each_task(pool_, ceil_div(call.rows, together), small, [&](int index, int) {
    const int first = index * together;
    const int count = std::min(together, call.rows - first);
    std::array<Place, kAppendedTogether> places;
    for (int i = 0; i < count; ++i) {
      const Segment* segment = call.segments.data();
      int row = first + i;
      while (row >= segment->rows) row -= (segment++)->rows;
      const int position = segment->past + row;
      places[i] = {segment->first_row + row, position,
                   cache_row(call.heads, call.capacity, segment->sequence, 0) + position};
    }
    task(Places(places).first(count));
  });
}

void CacheWriter::append(const Tensor& x, const Tensor& cache, int capacity,
                         std::span<const Segment> segments) {
  const int head_dim = cache.cols - scale_columns(cache.dtype);
  const Call call = call_of(segments, x.cols / head_dim, head_dim, capacity);
  make_ready(call, cache);
  each_block(call, x.cols, [&, from = rows_of(x), to = rows_of(cache)](Places places) {
    write_heads(call, places, from, to);
  });
}

void CacheWriter::append_rotated(const Tensor& qkv, const Tensor& angles, const LayerCache& cache,
                                 std::span<const Segment> segments) {
  const Call call = call_of(segments, cache.kv_heads, cache.head_dim, cache.capacity);
  make_ready(call, cache.keys);
  make_ready(call, cache.values);
  const int kv_width = call.heads * call.head_dim;
  const int rotated = qkv.cols - kv_width;  // queries and keys
  const Rows x = rows_of(qkv);
  const Rows k = shifted(x, 0, rotated - kv_width);
  const Rows v = shifted(x, 0, rotated);
  const Rows keys = rows_of(cache.keys);
  const Rows values = rows_of(cache.values);
  const Rows turns = angles.storage ? rows_of(angles) : Rows{};
  each_block(call, qkv.cols, [&](Places places) {
    if (turns.data) {
      for (const Place& place : places) {
        rotate_row(table_, x.f32(place.row), rotated, call.head_dim, turns.f32(place.position),
                   angles.cols / 2);
      }
    }
    write_heads(call, places, k, keys);
    write_heads(call, places, v, values);
  });
}

void CacheWriter::write_heads(const Call& call, Places places, const Rows& from,
                              const Rows& to) const {
  for (int head = 0; head < call.heads; ++head) {
    for (const Place& place : places) {
      write_head(from.f32(place.row) + head * call.head_dim, call.head_dim,
                 shifted(to, place.target + int64_t{head} * call.capacity, 0));
    }
  }
}

void CacheWriter::write_head(const float* values, int head_dim, const Rows& to) const {
  if (to.dtype == DType::kF16) {
    table_.to_f16(values, head_dim, reinterpret_cast<uint16_t*>(to.data));
  } else if (to.dtype == DType::kI8) {
    table_.to_i8(values, head_dim, reinterpret_cast<int8_t*>(to.data));
  } else {
    std::memcpy(to.data, values, head_dim * sizeof(float));
  }
}

}  // namespace ocelli::kernels::cpu
