// Depthwise 3x3 convolutions on AVX-512 VNNI without a padded copy; part of avx512vnni.cc.
//
// A lane of four pixels is turned into four windows, one for each channel, of four neighbouring pixels:
// bytes (c0: p, p+1, p+2, p+3), (c1: ...), ... One vpdpbusd with weights (w0, w1, w2, 0) then gives the output
// whose window begins at p, one with (0, w0, w1, w2) the next one. The windows of each row are made once and
// used by the three rows of outputs that see it. Those of group g + 1 are written before group g is computed:
// a load that straddles two stores just made would have to wait for both.
//
// Stride 1: windows from p - 1 and from p + 1 give outputs p, p + 1 and p + 2, p + 3. Stride 2: windows from p
// and from p + 2 give one output each. What lies beyond the ends of a row is blended to the zero point.
//
// Flat: rows of a multiple of four pixels do not share a lane, so that vectors of sixteen pixels go over all
// rows as one; with stride 2 even and odd rows lie apart. Rows: anything else, each row from a vector of its
// own.
#pragma once

#include "vnni.h"

namespace edgesparse {
namespace {

bool flat_geometry(const Depthwise& d) {
  if (d.width % 4) return false;
  if (d.stride_height == 1)
    return d.pad_top == 1 && d.pad_left == 1 && d.out_height == d.height && d.out_width == d.width;
  return d.stride_height == 2 && d.width >= 8 && !d.pad_top && !d.pad_left && d.height % 2 == 0 &&
         d.out_height == d.height / 2 && d.out_width == d.width / 2;
}

bool direct_geometry(const Depthwise& d) {
  return d.kernel_height == 3 && d.kernel_width == 3 && d.dilation_height == 1 && d.dilation_width == 1 &&
         d.stride_height == d.stride_width && d.stride_width <= 2 && d.pad_left < 16;
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

// Sums of 3x3 windows of one group.
struct GroupArithmetic {
  Vector weights[6], bias;
  Floats scale;

  GroupArithmetic(const Depthwise& d, int group, const int8_t* direct)
      : bias(lanes(_mm_loadu_si128((const __m128i*)(d.bias + group * 4)))),
        scale(float_lanes(_mm_loadu_ps(d.scale + group * 4))) {
    for (int i = 0; i < 6; i++)
      weights[i] = lanes(_mm_loadu_si128((const __m128i*)(direct + (size_t)group * kDirectWeights + i * 16)));
  }

  INLINE Vector finish(Vector (&t)[4], const Requantizer& rq) const {
    for (int j = 0; j < 4; j++) t[j] = Requantizer::scaled(t[j], scale);
    return rq.bytes(rq.pair(t[0], t[1]), rq.pair(t[2], t[3]));
  }

  // Sixteen outputs; each pointer of `rows` is that of its windows in the first array.
  INLINE Vector stride1(const uint8_t* const (&rows)[3], size_t second, const Requantizer& rq) const {
    Vector t[4] = {bias, bias, bias, bias};
#pragma GCC unroll 3
    for (int y = 0; y < 3; y++) {
      const Vector a = load(rows[y]), b = load(rows[y] + second);
      t[0] = dpbusd(t[0], a, weights[2 * y]), t[1] = dpbusd(t[1], a, weights[2 * y + 1]);
      t[2] = dpbusd(t[2], b, weights[2 * y]), t[3] = dpbusd(t[3], b, weights[2 * y + 1]);
    }
    return finish(t, rq);
  }

  INLINE Vector stride2(const uint8_t* const (&rows)[3], size_t second, const Requantizer& rq) const {
    Vector t[4] = {bias, bias, bias, bias};
#pragma GCC unroll 3
    for (int y = 0; y < 3; y++) {
      const Vector w = weights[2 * y];
      t[0] = dpbusd(t[0], load(rows[y]), w), t[1] = dpbusd(t[1], load(rows[y] + second), w);
      t[2] = dpbusd(t[2], load(rows[y] + 64), w), t[3] = dpbusd(t[3], load(rows[y] + second + 64), w);
    }
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), finish(t, rq));
  }
};

struct Flat {
  const Depthwise& d;
  size_t row, bytes;  // of a row of pixels, of an array of windows
  const Edges* edges;
  Vector outside;

  Flat(const Depthwise& depthwise, const int8_t* packed)
      : d(depthwise),
        row((size_t)depthwise.width * 4),
        bytes(windows_bytes(depthwise)),
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
        const Vector b =
            _mm512_mask_blend_epi8(from_pixel(d.width - 2 - x), _mm512_loadu_si512(in + o + 8), outside);
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

  void group(const GroupArithmetic& a, const uint8_t* scratch, uint8_t* out, const Requantizer& rq) const {
    const int pixels = d.out_height * d.out_width;
    if (d.stride_height == 1) {
      const uint8_t* at = scratch + top() - row;
      for (int p = 0; p < pixels; p += 16, at += 64)
        store(out + (size_t)p * 4, a.stride1({at, at + row, at + 2 * row}, bytes, rq));
    } else {
      for (int p = 0; p < pixels; p += 16, scratch += 128)
        store(out + (size_t)p * 4, a.stride2({scratch, scratch + 2 * bytes, scratch + row}, bytes, rq));
    }
  }

  static size_t scratch_bytes(const Depthwise& d) { return 4 * windows_bytes(d); }
};

struct Rows {
  const Depthwise& d;
  size_t pitch, bytes;  // of a row of windows, of an array
  Vector outside;

  // Sixteen outputs need as many windows, with stride 2 twice as many.
  static size_t pitch_of(const Depthwise& d) { return (size_t)(d.out_width + 15) / 16 * 64 * d.stride_width; }
  static size_t scratch_bytes(const Depthwise& d) { return 2 * (d.height + 1) * pitch_of(d); }

  Rows(const Depthwise& depthwise, const int8_t*)
      : d(depthwise),
        pitch(pitch_of(depthwise)),
        bytes((depthwise.height + 1) * pitch_of(depthwise)),
        outside(_mm512_set1_epi8((char)(depthwise.in_zero_point + 128))) {}

  // The last row of each array stays blank: it stands for those above and below.
  void prepare(uint8_t* scratch) const {
    for (int i = 1; i <= 4; i++) fill_row(scratch + i * bytes - pitch, pitch, outside);
  }

  void windows(const uint8_t* in, uint8_t* scratch) const {
    for (int x = 0; x < (int)(pitch / 4); x += 16, scratch += 64) {
      const int first = x - d.pad_left;  // its column
      const __mmask64 before = ~from_pixel(-first) | from_pixel(d.width - first);
      const __mmask64 second = from_pixel(d.width - first - 2);
      // Where nothing is inside, what is read may be nobody's memory.
      const uint8_t* at = in + (first - 15 > d.width ? 0 : (ptrdiff_t)first * 4);
      uint8_t* to = scratch;
      for (int y = 0; y < d.height; y++, at += (size_t)d.width * 4, to += pitch) {
        store(to, interleaved(_mm512_mask_blend_epi8(before, load(at), outside)));
        store(to + bytes, interleaved(_mm512_mask_blend_epi8(second, load(at + 8), outside)));
      }
    }
  }

  void group(const GroupArithmetic& a, const uint8_t* scratch, uint8_t* out, const Requantizer& rq) const {
    for (int y = 0; y < d.out_height; y++, out += (size_t)d.out_width * 4) {
      const uint8_t* rows[3];
      for (int k = 0; k < 3; k++) {
        const int from = y * d.stride_height - d.pad_top + k;
        rows[k] = scratch + (from < 0 || from >= d.height ? d.height : from) * pitch;
      }
      for (int x = 0; x < d.out_width; x += 16) {
        const size_t o = (size_t)x * 4 * d.stride_width;
        const Vector v = d.stride_width == 1 ? a.stride1({rows[0] + o, rows[1] + o, rows[2] + o}, bytes, rq)
                                             : a.stride2({rows[0] + o, rows[1] + o, rows[2] + o}, bytes, rq);
        const int left = d.out_width - x;
        _mm512_mask_storeu_epi32(out + (size_t)x * 4, (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1), v);
      }
    }
  }
};

template <class Windows>
void run_direct(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                uint8_t* scratch) {
  const Requantizer rq(d.output);
  const int8_t* packed = (const int8_t*)d.packed + packed_taps_bytes(d);
  const Windows direct(d, packed);
  const size_t half = Windows::scratch_bytes(d);
  direct.prepare(scratch);
  in += (size_t)group * d.in_plane, out += (size_t)group * d.out_plane;
  direct.windows(in, scratch + (group & 1) * half);
  for (int g = group; g < group_end; g++, out += d.out_plane) {
    in += d.in_plane;
    if (g + 1 < group_end) direct.windows(in, scratch + ((g + 1) & 1) * half);
    direct.group(GroupArithmetic(d, g, packed), scratch + (g & 1) * half, out, rq);
  }
}

bool can_depthwise_direct(const Depthwise& d, size_t* scratch_bytes) {
  *scratch_bytes = 2 * (flat_geometry(d) ? Flat::scratch_bytes(d) : Rows::scratch_bytes(d)) + 256;
  return direct_geometry(d);
}

void depthwise_direct(const Depthwise& d, const uint8_t* in, uint8_t* out, int group, int group_end,
                      uint8_t* scratch) {
  if (flat_geometry(d))
    run_direct<Flat>(d, in, out, group, group_end, scratch);
  else
    run_direct<Rows>(d, in, out, group, group_end, scratch);
}

}  // namespace
}  // namespace edgesparse
