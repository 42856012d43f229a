// Memory without the C++ library: growing arrays of plain structs, and buffers of tensors.
#pragma once

#include <stdlib.h>
#include <string.h>

#include "kernels.h"

namespace edgesparse {

// An array of plain structs that grows at its end. Memory that cannot be had ends the process, as `new`
// without exceptions does.
template <class T>
struct Array {
  T* data = nullptr;
  int size = 0, capacity = 0;

  Array() = default;
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { free(data); }

  T& operator[](int i) { return data[i]; }
  const T& operator[](int i) const { return data[i]; }
  T* begin() { return data; }
  T* end() { return data + size; }
  const T* begin() const { return data; }
  const T* end() const { return data + size; }

  void reserve(int n) {
    if (n <= capacity) return;
    capacity = n < 2 * capacity ? 2 * capacity : n;
    data = (T*)realloc((void*)data, sizeof(T) * (size_t)capacity);
    if (!data) abort();
  }
  T& push(const T& value) {
    const T copy = value;  // it may lie in this array
    reserve(size + 1);
    return data[size++] = copy;
  }
  void resize(int n) {  // new elements are zero
    reserve(n);
    if (n > size) memset((void*)(data + size), 0, sizeof(T) * (size_t)(n - size));
    size = n;
  }
  void clear() { size = 0; }
};

// `bytes` bytes, aligned to 64, with kMargin bytes before and behind, all zero. Released with release().
inline uint8_t* allocate(size_t bytes) {
  void* memory = nullptr;
  const size_t all = (bytes + 2 * kMargin + 63) / 64 * 64;
  if (posix_memalign(&memory, 64, all)) abort();
  memset(memory, 0, all);
  return (uint8_t*)memory + kMargin;
}
inline void release(const void* data) {
  if (data) free((uint8_t*)data - kMargin);
}

}  // namespace edgesparse
