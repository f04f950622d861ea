// SPDX-License-Identifier: Apache-2.0
// Inlined calls in every place that an entry can stand in. Compiled by several compilers and in
// several formats; llvm-symbolizer says what is right.
#include <inlines.h>

volatile int sink;

namespace {
__attribute__((noinline)) int FileLocal(int x) {
  int sum = 0;
  for (int i = 0; i < x; ++i) {
    int inner = outer::Twice(i);
    {
      int deeper = outer::Middle(inner);
      sum += deeper;
    }
  }
  return sum;
}
}  // namespace

struct Shape {
  explicit Shape(int sides);
  virtual ~Shape();
  virtual int Area(int scale) const;
  int sides;
};
__attribute__((noinline)) Shape::Shape(int s) : sides(outer::Leaf(s)) {}
__attribute__((noinline)) Shape::~Shape() { sink = outer::Leaf(sides); }
__attribute__((noinline)) int Shape::Area(int scale) const { return outer::Twice(sides * scale); }

template <typename F>
ALWAYS int Call(F f, int x) {
  return f(x) + f(x + 1);
}

// A lambda that calls inlined code three deep, and one that stays a function of its own.
__attribute__((noinline)) int Lambdas(int x) {
  auto small = [x](int y) { return outer::Middle(x + y); };
  auto kept = [&](int y) __attribute__((noinline)) {
    struct Local {
      __attribute__((noinline)) static int Method(int z) { return outer::Twice(z) + 1; }
    };
    return Local::Method(y) + outer::Twice(y + x);
  };
  return Call(small, x) + kept(x) + Call(kept, x + 2);
}

extern "C" __attribute__((noinline)) int plain_name(int x) {
  if (__builtin_expect(x == 12345, 0)) {
    sink = outer::Middle(x);
    __builtin_trap();
  }
#line 7 "generated/parser.y"
  return outer::Leaf(x) + FileLocal(x);
}

int main(int argc, char**) {
  Shape shape(argc);
  return shape.Area(2) + Lambdas(argc) + plain_name(argc) + outer::Twice(argc);
}
