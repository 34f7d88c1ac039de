// Attention of new tokens over their sequences' stores, shared among a team; see abi.h for the stores.
//
// Tasks are tiles of queries of one group of heads. Queries that fill one tile only (a decoded token) share their keys
// among the team instead: a task is a block of keys, and who finishes a tile's last block merges all of them, in order.
#pragma once
#include "attend.h"
#if defined(__AMX_BF16__)
#include "attend_amx.h"
#endif
#include "parallel.h"
#include "pointwise.h"

namespace llm {
namespace LLM_VARIANT {

// Rows of heads in memory, in either dtype.
struct HeadRows {
  void* data;
  int32_t dtype;
  int64_t token_stride, head_stride;

  template <class Element>
  Element* head(int64_t token, int64_t head) const {
    return static_cast<Element*>(data) + token * token_stride + head * head_stride;
  }
};

// Queries of one sequence at consecutive positions, in consecutive rows.
struct QueryRun {
  const LlmKV* kv;  // [num_layers]
  int64_t position;
  int32_t query_row, output_row, length;
};

struct Attention {
  AttentionShape shape;
  const QueryRun* runs;
  int32_t num_runs, layer;
  HeadRows query, output;
  uint8_t* member_buffers;  // member_bytes for each member
  uint8_t* partials;        // partial_bytes of each run
  int32_t* finished;        // [num_runs, kv_heads] blocks that are done: zeros before and after
};

static size_t member_bytes(const AttentionShape& shape) {
  Carver carver(nullptr);
  AttentionBuffers(carver, shape);
  return carver.used();
}

// A run as tasks.
struct RunTasks {
  int64_t tiles, first_block, blocks;
  size_t share_bytes = 0;  // of one block's partial result, where the run shares its keys

  RunTasks(const AttentionShape& shape, int64_t position, int64_t length) {
    tiles = (length + shape.tile_tokens() - 1) / shape.tile_tokens();
    first_block = shape.first_visible(position) / kBlockKeys;
    blocks = (position + length - 1) / kBlockKeys + 1 - first_block;
    if (!shares_keys()) return;
    Carver carver(nullptr);
    take_partial(carver, shape, length * shape.group());
    share_bytes = carver.used();
  }
  RunTasks(const AttentionShape& shape, const QueryRun& run) : RunTasks(shape, run.position, run.length) {}
  bool shares_keys() const { return tiles == 1 && blocks > 1; }
  int64_t per_head() const { return shares_keys() ? blocks : tiles; }
};

// What the shared tiles of a run need.
static size_t partial_bytes(const AttentionShape& shape, int64_t position, int64_t length) {
  const RunTasks tasks(shape, position, length);
  return tasks.share_bytes * tasks.blocks * shape.kv_heads;
}

// Takes the memory that `attend` works in. `partials`: the sum of partial_bytes of its runs.
static void take_buffers(Carver& carver, Attention& work, int threads, size_t partials) {
  work.member_buffers = carver.take<uint8_t>(threads * member_bytes(work.shape));
  work.partials = carver.take<uint8_t>(partials);
  work.finished = carver.take<int32_t>(static_cast<int64_t>(work.num_runs) * work.shape.kv_heads);
}

static void clear_finished(const Attention& work) {
  memset(work.finished, 0, sizeof(int32_t) * work.num_runs * work.shape.kv_heads);
}

static void attend_block(const Attention& work, const QueryTile& tile, int64_t block, const AttentionBuffers& buffers,
                         const Partial& out) {
#if defined(__AMX_BF16__)
  if (work.shape.on_tiles()) {
    const int rows = tile.tokens * work.shape.group();
    configure_attention(buffers.registers, tile_width(rows));
    return with_tile_width(rows, [&](auto width) {
      attend_block_on_tiles<width.value>(work.shape, tile, block, buffers, out);
    });
  }
#endif
  const bool is_bf16 = work.shape.kv_dtype == LLM_DTYPE_BF16;
  (is_bf16 ? attend_block<uint16_t> : attend_block<float>)(work.shape, tile, block, buffers, out);
}

template <class Element>
static void load_queries(const Attention& work, const QueryTile& tile, int64_t first_row, float* queries) {
  const int64_t dim = work.shape.head_dim;
  const int group = work.shape.group();
  for (int row = 0; row < tile.tokens * group; ++row) {
    const Element* const from = work.query.head<Element>(first_row + row / group, tile.kv_head * group + row % group);
    for (int64_t d = 0; d < dim; d += kLanes) {
      store_rest(queries + row * dim + d, load_rest(from + d, dim - d) * work.shape.scale, dim - d);
    }
  }
}

template <class Element>
static void store_outputs(const Attention& work, const QueryTile& tile, int64_t first_row, const Partial& all) {
  const int group = work.shape.group();
  for (int row = 0; row < tile.tokens * group; ++row) {
    const int head = tile.kv_head * group + row % group;
    finish_row(work.shape, all, row, head);
#if defined(__AMX_BF16__)
    if (work.shape.on_tiles()) put_in_order(work.shape, all.sums + row * work.shape.padded_dim());
#endif
    convert_row(all.sums + row * work.shape.padded_dim(), work.output.head<Element>(first_row + row / group, head),
                work.shape.head_dim);
  }
}

static void load_tile(const Attention& work, const QueryTile& tile, int64_t first_row,
                      const AttentionBuffers& buffers) {
  const bool is_bf16 = work.query.dtype == LLM_DTYPE_BF16;
  (is_bf16 ? load_queries<uint16_t> : load_queries<float>)(work, tile, first_row, buffers.queries);
#if defined(__AMX_BF16__)
  if (work.shape.on_tiles()) {
    const int rows = tile.tokens * work.shape.group();
    with_tile_width(rows, [&](auto width) {
      pack_queries<width.value>(work.shape, rows, buffers.queries, buffers.tile_queries);
    });
  }
#endif
}

static void store_tile(const Attention& work, const QueryTile& tile, int64_t first_row, const Partial& all) {
  const bool is_bf16 = work.output.dtype == LLM_DTYPE_BF16;
  (is_bf16 ? store_outputs<uint16_t> : store_outputs<float>)(work, tile, first_row, all);
}

static void attend_tile(const Attention& work, const QueryRun& run, int64_t first_token, const QueryTile& tile,
                        const AttentionBuffers& buffers) {
  const int rows = tile.tokens * work.shape.group();
  load_tile(work, tile, run.query_row + first_token, buffers);
  clear(buffers.all, rows);
  for (int64_t block = tile.first_key(work.shape) / kBlockKeys; block * kBlockKeys < tile.end_key(); ++block) {
    attend_block(work, tile, block, buffers, buffers.block);
    merge(work.shape, rows, buffers.all, buffers.block);
  }
  store_tile(work, tile, run.output_row + first_token, buffers.all);
}

// One block of a tile whose blocks are `tasks`; `partials` are those of the tile.
static void attend_share(const Attention& work, const QueryRun& run, const RunTasks& tasks, const QueryTile& tile,
                         int64_t index, uint8_t* partials, int32_t* finished, const AttentionBuffers& buffers) {
  const int rows = tile.tokens * work.shape.group();
  const auto partial = [&](int64_t block) {
    Carver carver(partials + block * tasks.share_bytes);
    return take_partial(carver, work.shape, rows);
  };
  load_tile(work, tile, run.query_row, buffers);
  attend_block(work, tile, tasks.first_block + index, buffers, partial(index));
  if (__atomic_add_fetch(finished, 1, __ATOMIC_ACQ_REL) < tasks.blocks) return;
  *finished = 0;
  clear(buffers.all, rows);
  for (int64_t block = 0; block < tasks.blocks; ++block) merge(work.shape, rows, buffers.all, partial(block));
  store_tile(work, tile, run.output_row, buffers.all);
}

// One phase of a team.
static void attend(Member& member, const Attention& work) {
  const AttentionShape& shape = work.shape;
  Carver carver(work.member_buffers + member.index() * member_bytes(shape));
  const AttentionBuffers buffers(carver, shape);
  int64_t num_tasks = 0;
  for (int32_t i = 0; i < work.num_runs; ++i) num_tasks += RunTasks(shape, work.runs[i]).per_head() * shape.kv_heads;
  // A member's tasks mostly grow, so the run they belong to is found by walking on; now and then it starts over.
  int32_t index = 0;
  int64_t run_start = 0;
  uint8_t* partials = work.partials;
  member.each(num_tasks, [&](int64_t task) {
    if (task < run_start) {
      index = 0;
      run_start = 0;
      partials = work.partials;
    }
    const auto tasks_of = [&] { return RunTasks(shape, work.runs[index]); };
    RunTasks tasks = tasks_of();
    while (task - run_start >= tasks.per_head() * shape.kv_heads) {
      run_start += tasks.per_head() * shape.kv_heads;
      partials += tasks.share_bytes * tasks.blocks * shape.kv_heads;
      ++index;
      tasks = tasks_of();
    }
    const QueryRun& run = work.runs[index];
    // A head's blocks lie one behind the other in memory; its tiles do not.
    const int64_t nth = task - run_start;
    const int kv_head = static_cast<int>(tasks.shares_keys() ? nth / tasks.blocks : nth % shape.kv_heads);
    const int64_t part = tasks.shares_keys() ? nth % tasks.blocks : nth / shape.kv_heads;
    QueryTile tile{run.kv[work.layer], run.position, run.length, kv_head};
    if (tasks.shares_keys()) {
      attend_share(work, run, tasks, tile, part, partials + kv_head * tasks.blocks * tasks.share_bytes,
                   work.finished + index * shape.kv_heads + kv_head, buffers);
      return;
    }
    // The last tokens see the most keys: they come first, so that no long task is left for the end.
    const int64_t first = (tasks.tiles - 1 - part) * shape.tile_tokens();
    tile.position += first;
    tile.tokens = static_cast<int>(run.length - first < shape.tile_tokens() ? run.length - first : shape.tile_tokens());
    attend_tile(work, run, first, tile, buffers);
  });
}

}  // namespace LLM_VARIANT
}  // namespace llm
