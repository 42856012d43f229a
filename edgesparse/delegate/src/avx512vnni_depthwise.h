// Depthwise 3x3 convolutions on AVX-512 VNNI without a padded copy; part of avx512vnni.cc.
//
// A lane of four pixels is turned into four windows, one for each channel, of four neighbouring pixels:
// bytes (c0: p, p+1, p+2, p+3), (c1: ...), ... One vpdpbusd with weights (w0, w1, w2, 0) then gives the output
// whose window begins at p, one with (0, w0, w1, w2) the next one. The windows of each row are made once and
// used by the three rows of outputs that see it. Those of group g + 1 are written before group g is computed:
// a load that straddles two stores just made would have to wait for both.
//
// Stride 1: windows from p - 1 and from p + 1 give outputs p, p + 1 and p + 2, p + 3. Stride 2: windows from p
// and from p + 2 give one output each; even and odd rows lie apart. What lies beyond the ends of a row is
// blended to the zero point; that needs rows of a multiple of four pixels, which do not share a lane.
#pragma once

namespace edgesparse {
namespace {

bool direct_geometry(const Depthwise& d) {
  if (d.kernel_height != 3 || d.kernel_width != 3 || d.dilation_height != 1 || d.dilation_width != 1) return false;
  if (d.stride_height != d.stride_width || d.width % 4) return false;
  if (d.stride_height == 1)
    return d.pad_top == 1 && d.pad_left == 1 && d.out_height == d.height && d.out_width == d.width;
  return d.stride_height == 2 && d.width >= 8 && !d.pad_top && !d.pad_left && d.height % 2 == 0 &&
         d.out_height == d.height / 2 && d.out_width == d.width / 2;
}

enum { kDirectWeights = 96 };  // bytes of a group: two vectors of 16 for each of the three rows

// One array of windows; there are four, twice.
size_t windows_bytes(const Depthwise& d) {
  return ((size_t)(d.height * d.width + 2 * d.width) * 4 + 64 + 256 + 63) / 64 * 64;
}

// For each vector of pixels: bits of the bytes of pixels that begin a row, and of those that end one.
struct Edges {
  uint64_t begin, end;
};

size_t direct_bytes(const Depthwise& d) {
  const size_t vectors = (size_t)(d.height * d.width + 15) / 16;
  return ((size_t)d.groups * kDirectWeights + 63) / 64 * 64 + vectors * sizeof(Edges);
}

const Edges* edges_of(const Depthwise& d, const int8_t* direct) {
  return (const Edges*)(direct + ((size_t)d.groups * kDirectWeights + 63) / 64 * 64);
}

void pack_direct(const Depthwise& d, int8_t* out) {
  memset(out, 0, direct_bytes(d));
  Edges* edges = (Edges*)edges_of(d, out);
  for (int p = 0; p < d.height * d.width; p++) {
    if (p % d.width == 0) edges[p / 16].begin |= 15ull << (p % 16 * 4);
    if (p % d.width == d.width - 1) edges[p / 16].end |= 15ull << (p % 16 * 4);
  }
  for (int g = 0; g < d.groups; g++, out += kDirectWeights)
    for (int y = 0; y < 3; y++)
      for (int c = 0; c < 4; c++)
        for (int x = 0; x < 3; x++) {
          const int8_t w = d.weights[((size_t)g * 9 + y * 3 + x) * 4 + c];
          out[y * 32 + c * 4 + x] = w;
          out[y * 32 + 16 + c * 4 + x + 1] = w;
        }
}

INLINE void fill_row(uint8_t* out, size_t bytes, Vector value) {
  for (size_t i = 0; i < bytes; i += 16) _mm_storeu_si128((__m128i*)(out + i), _mm512_castsi512_si128(value));
}

// Bits of the bytes of pixel `at` (of this vector) and on, none where it is beyond the vector.
INLINE __mmask64 from_pixel(int at) { return at >= 16 ? 0 : at <= 0 ? ~0ull : ~0ull << (at * 4); }

struct Direct {
  const Depthwise& d;
  size_t row, bytes;  // of a row of pixels, of an array of windows
  const Edges* edges;
  Vector outside;

  Direct(const Depthwise& depthwise, const int8_t* packed)
      : d(depthwise), row((size_t)depthwise.width * 4), bytes(windows_bytes(depthwise)),
        edges(edges_of(depthwise, packed)),
        outside(_mm512_set1_epi8((char)(depthwise.in_zero_point + 128))) {}

  size_t top() const { return (row + 63) / 64 * 64; }

  // Rows of zero points above all windows; what is below is written with every group.
  void prepare(uint8_t* scratch) const {
    if (d.stride_height == 1)
      for (int i = 0; i < 2; i++, scratch += 4 * bytes)
        fill_row(scratch + top() - row, row, outside), fill_row(scratch + bytes + top() - row, row, outside);
  }

  // Windows from p - 1 in the first array, from p + 1 in the second one.
  void windows1(const uint8_t* in, uint8_t* scratch) const {
    uint8_t *before = scratch + top(), *after = before + bytes;
    const int pixels = d.height * d.width;
    const Edges* edge = edges;
    for (int p = 0; p < pixels; p += 16, edge++) {
      const size_t o = (size_t)p * 4;
      store(before + o, interleaved(_mm512_mask_blend_epi8(edge->begin, load(in + o - 4), outside)));
      store(after + o, interleaved(_mm512_mask_blend_epi8(edge->end, load(in + o + 4), outside)));
    }
    fill_row(before + (size_t)pixels * 4, row, outside), fill_row(after + (size_t)pixels * 4, row, outside);
  }

  // Windows from p and from p + 2 of even rows, then of odd ones; a row of zero points below the even ones.
  void windows2(const uint8_t* in, uint8_t* scratch) const {
    for (int y = 0; y < d.height; y++, in += row) {
      uint8_t* at = scratch + (y & 1) * 2 * bytes + (size_t)(y / 2) * row;
      for (int x = 0; x < d.width; x += 16) {  // what is written beyond the row is repaired by the next one
        const size_t o = (size_t)x * 4;
        const Vector a = _mm512_loadu_si512(in + o);
        const Vector b = _mm512_mask_blend_epi8(from_pixel(d.width - 2 - x), _mm512_loadu_si512(in + o + 8), outside);
        _mm512_storeu_si512(at + o, interleaved(a));
        _mm512_storeu_si512(at + bytes + o, interleaved(b));
      }
    }
    uint8_t* below = scratch + (size_t)(d.height / 2) * row;
    fill_row(below, row, outside), fill_row(below + bytes, row, outside);
  }

  void windows(const uint8_t* in, uint8_t* scratch) const {
    if (d.stride_height == 1)
      windows1(in, scratch);
    else
      windows2(in, scratch);
  }

  void group(int g, const int8_t* weights, const uint8_t* scratch, uint8_t* out, const Requantizer& rq) const {
    Vector w[6];
    for (int i = 0; i < 6; i++) w[i] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)(weights + i * 16)));
    const __m512 scale = _mm512_broadcast_f32x4(_mm_loadu_ps(d.scale + g * 4));
    const Vector bias = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)(d.bias + g * 4)));
    const int pixels = d.out_height * d.out_width;
    const auto finish = [&](Vector(&t)[4]) {
      for (int j = 0; j < 4; j++) t[j] = Requantizer::scaled(t[j], scale);
      return rq.bytes(rq.pair(t[0], t[1]), rq.pair(t[2], t[3]));
    };
    if (d.stride_height == 1) {
      const uint8_t* before = scratch + top() - row;
      for (int p = 0; p < pixels; p += 16, before += 64) {
        Vector t[4] = {bias, bias, bias, bias};
#pragma GCC unroll 3
        for (int y = 0; y < 3; y++) {
          const Vector a = _mm512_loadu_si512(before + y * row), b = _mm512_loadu_si512(before + bytes + y * row);
          t[0] = _mm512_dpbusd_epi32(t[0], a, w[2 * y]), t[1] = _mm512_dpbusd_epi32(t[1], a, w[2 * y + 1]);
          t[2] = _mm512_dpbusd_epi32(t[2], b, w[2 * y]), t[3] = _mm512_dpbusd_epi32(t[3], b, w[2 * y + 1]);
        }
        _mm512_storeu_si512(out + (size_t)p * 4, finish(t));
      }
      return;
    }
    const uint8_t* rows[] = {scratch, scratch + 2 * bytes, scratch + row};
    const Vector order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    for (int p = 0; p < pixels; p += 16) {
      const size_t o = (size_t)p * 8;
      Vector t[4] = {bias, bias, bias, bias};
#pragma GCC unroll 3
      for (int y = 0; y < 3; y++) {
        const uint8_t* a = rows[y] + o;
        t[0] = _mm512_dpbusd_epi32(t[0], _mm512_loadu_si512(a), w[2 * y]);
        t[1] = _mm512_dpbusd_epi32(t[1], _mm512_loadu_si512(a + bytes), w[2 * y]);
        t[2] = _mm512_dpbusd_epi32(t[2], _mm512_loadu_si512(a + 64), w[2 * y]);
        t[3] = _mm512_dpbusd_epi32(t[3], _mm512_loadu_si512(a + bytes + 64), w[2 * y]);
      }
      _mm512_storeu_si512(out + (size_t)p * 4, _mm512_permutexvar_epi64(order, finish(t)));
    }
  }
};

bool can_depthwise_direct(const Depthwise& d, size_t* scratch_bytes) {
  *scratch_bytes = 8 * windows_bytes(d) + 256;
  return direct_geometry(d);
}

void depthwise_direct(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                      uint8_t* scratch) {
  const Requantizer rq(d.output);
  const int8_t* weights = (const int8_t*)d.packed + packed_taps_bytes(d);
  const Direct direct(d, weights);
  direct.prepare(scratch);
  in += (size_t)group * d.in_plane, out += (size_t)group * d.out_plane;
  direct.windows(in, scratch + (group & 1) * 4 * direct.bytes);
  for (int g = group; g < group_end; g++, out += d.out_plane) {
    in += d.in_plane;
    if (g + 1 < group_end) direct.windows(in, scratch + ((g + 1) & 1) * 4 * direct.bytes);
    direct.group(g, weights + (size_t)g * kDirectWeights, scratch + (g & 1) * 4 * direct.bytes, out, rq);
  }
}

}  // namespace
}  // namespace edgesparse
