// Weights of a file, dense or sparse. A sparse tensor stores, level by level of `traversal_order`, either all
// indices of a dimension (dense) or those present (CSR: segments and indices); dimensions beyond the tensor's
// rank are the blocks of `block_map`. Everything is checked: the file may be damaged or hostile.
// flags: -O2
#include "layers.h"

namespace edgesparse {
namespace {

struct Decoder {
  const TfLiteSparsity& sparsity;
  const int8_t* values;
  int64_t value_count;
  const int* shape;
  int rank;
  int8_t* out;
  int block[8];   // of each dimension: the size of its block, 1 without
  int index[16];  // of each level

  bool walk(int level, int64_t position) {
    if (level == sparsity.dim_metadata_size) {
      int64_t full[8] = {0};
      for (int i = 0; i < level; i++) {
        const int d = sparsity.traversal_order->data[i];
        if (d < rank)
          full[d] += (int64_t)index[i] * block[d];
        else
          full[sparsity.block_map->data[d - rank]] += index[i];
      }
      int64_t at = 0;
      for (int i = 0; i < rank; i++) {
        if (full[i] < 0 || full[i] >= shape[i]) return false;
        at = at * shape[i] + full[i];
      }
      if (position < 0 || position >= value_count) return false;
      out[at] = values[position];
      return true;
    }
    const TfLiteDimensionMetadata& m = sparsity.dim_metadata[level];
    if (m.format == 0) {
      for (int i = 0; i < m.dense_size; i++) {
        index[level] = i;
        if (!walk(level + 1, position * m.dense_size + i)) return false;
      }
      return true;
    }
    if (position < 0 || position + 1 >= m.array_segments->size) return false;
    const int from = m.array_segments->data[position], to = m.array_segments->data[position + 1];
    if (from < 0 || to > m.array_indices->size) return false;
    for (int i = from; i < to; i++) {
      index[level] = m.array_indices->data[i];
      if (!walk(level + 1, i)) return false;
    }
    return true;
  }
};

}  // namespace

bool decode_sparse(const TfLiteTensor& t, Array<int8_t>* decoded) {
  const TfLiteSparsity* s = t.sparsity;
  const int rank = t.dims->size;
  if (!s || !is_constant(t) || t.type != kInt8 || rank < 1 || rank > 8) return false;
  const int levels = s->dim_metadata_size, blocks = s->block_map ? s->block_map->size : 0;
  if (!s->traversal_order || !s->dim_metadata || levels != s->traversal_order->size) return false;
  if (levels != rank + blocks || levels > 16) return false;
  const int64_t n = elements(t);
  if (n < 1 || n > (int64_t)1 << 31) return false;

  int seen = 0;
  for (int i = 0; i < levels; i++) {
    const int d = s->traversal_order->data[i];
    if (d < 0 || d >= levels || seen >> d & 1) return false;
    seen |= 1 << d;
    const TfLiteDimensionMetadata& m = s->dim_metadata[i];
    if (m.format != 0 && (m.format != 1 || !m.array_segments || !m.array_indices)) return false;
    if (m.format == 0 && m.dense_size < 1) return false;
  }
  Decoder decoder{*s, (const int8_t*)t.data, (int64_t)t.bytes, t.dims->data, rank, nullptr, {}, {}};
  for (int d = 0; d < rank; d++) decoder.block[d] = 1;
  for (int b = 0; b < blocks; b++) {
    const int d = s->block_map->data[b];
    if (d < 0 || d >= rank) return false;
    for (int i = 0; i < levels; i++)
      if (s->traversal_order->data[i] == rank + b) {
        if (s->dim_metadata[i].format != 0) return false;
        decoder.block[d] = s->dim_metadata[i].dense_size;
      }
  }
  decoded->clear();
  decoded->resize((int)n);
  decoder.out = decoded->data;
  return decoder.walk(0, 0);
}

const int8_t* weights_of(TfLiteContext* context, const Layer& layer, Array<int8_t>* decoded) {
  const TfLiteTensor& t = context->tensors[layer.sparse_weights >= 0 ? layer.sparse_weights : layer.weights];
  if (!is_constant(t)) return nullptr;
  if (!t.sparsity) return t.bytes == (size_t)elements(t) ? (const int8_t*)t.data : nullptr;
  return decode_sparse(t, decoded) ? decoded->data : nullptr;
}

}  // namespace edgesparse
