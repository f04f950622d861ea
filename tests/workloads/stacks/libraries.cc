// SPDX-License-Identifier: Apache-2.0
// Stacks through libraries: the dynamic linker's stubs and resolver, hand-written assembly of
// libcrypto and libc, zstd's and libc's loops, callbacks from libc.
#include <dlfcn.h>
#include <unistd.h>
#include <zstd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/workloads/stacks/stacks.h"

namespace {

std::vector<unsigned char> SomeBytes(size_t count) {
  std::vector<unsigned char> bytes(count);
  uint32_t x = 1;
  for (unsigned char& byte : bytes) {
    x = x * 1664525 + 1013904223;
    byte = static_cast<unsigned char>("firewatch looks"[(x >> 24) % 15] + (x >> 30));
  }
  return bytes;
}

}  // namespace

// ---- plt and resolve: libstacks_plt.so stands beside this program
// --------------------------------

#ifdef STACKS_STATIC
bool RunPlt() { return false; }
bool RunResolve() { return false; }
bool RunOpenssl() { return false; }
#else
namespace {
using PltEntry = void(int);

void* OpenPltLibrary() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (size < 0) return nullptr;
  const std::string program(path, static_cast<size_t>(size));
  const std::string library = program.substr(0, program.rfind('/')) + "/libstacks_plt.so";
  void* handle = dlopen(library.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (handle == nullptr) std::fprintf(stderr, "%s\n", dlerror());
  return handle;
}
}  // namespace

FRAME plt_root(PltEntry* entry) {
  entry(1000);
  KEEP_FRAME;
}
// Calls that are resolved already: two or three instructions of a PLT slot each.
bool RunPlt() {
  void* library = OpenPltLibrary();
  if (library == nullptr) return false;
  auto* entry = reinterpret_cast<PltEntry*>(dlsym(library, "plt_entry"));
  while (TimeLeft()) plt_root(entry);
  return true;
}

FRAME resolve_root(PltEntry* entry) {
  entry(1);
  KEEP_FRAME;
}
// The first call of each function after the library was loaded: PLT0, _dl_runtime_resolve.
bool RunResolve() {
  while (TimeLeft()) {
    void* library = OpenPltLibrary();
    if (library == nullptr) return false;
    resolve_root(reinterpret_cast<PltEntry*>(dlsym(library, "plt_entry")));
    dlclose(library);
  }
  return true;
}

// ---- openssl
// -------------------------------------------------------------------------------------

namespace {
// The few functions that are needed, from a library that need not be there when this is built.
struct Crypto {
  using Digest = unsigned char*(const unsigned char*, size_t, unsigned char*);
  Digest* sha1;
  Digest* sha256;
  Digest* sha512;
  void* (*context_new)();
  void (*context_free)(void*);
  int (*encrypt_init)(void*, const void*, void*, const unsigned char*, const unsigned char*);
  int (*encrypt_update)(void*, unsigned char*, int*, const unsigned char*, int);
  const void* ciphers[3];
};

bool LoadCrypto(Crypto* crypto) {
  void* library = dlopen("libcrypto.so.3", RTLD_NOW);
  if (library == nullptr) return false;
  const auto find = [&](auto* function, const char* name) {
    *function =
        reinterpret_cast<std::remove_reference_t<decltype(*function)>>(dlsym(library, name));
    return *function != nullptr;
  };
  const void* (*cipher)();
  const char* names[] = {"EVP_aes_256_cbc", "EVP_aes_128_gcm", "EVP_chacha20_poly1305"};
  for (int i = 0; i < 3; ++i) {
    if (!find(&cipher, names[i])) return false;
    crypto->ciphers[i] = cipher();
  }
  return find(&crypto->sha1, "SHA1") && find(&crypto->sha256, "SHA256") &&
         find(&crypto->sha512, "SHA512") && find(&crypto->context_new, "EVP_CIPHER_CTX_new") &&
         find(&crypto->context_free, "EVP_CIPHER_CTX_free") &&
         find(&crypto->encrypt_init, "EVP_EncryptInit_ex") &&
         find(&crypto->encrypt_update, "EVP_EncryptUpdate");
}
}  // namespace

FRAME openssl_digest(const Crypto* crypto, const unsigned char* data, size_t size) {
  unsigned char out[64];
  crypto->sha1(data, size, out);
  crypto->sha256(data, size, out);
  crypto->sha512(data, size, out);
  Use(out);
}
FRAME openssl_encrypt(const Crypto* crypto, const void* cipher, const unsigned char* data,
                      size_t size, unsigned char* out) {
  static const unsigned char key[32] = {1, 2, 3};
  static const unsigned char iv[16] = {4, 5, 6};
  void* context = crypto->context_new();
  crypto->encrypt_init(context, cipher, nullptr, key, iv);
  for (int i = 0; i < 20; ++i) {
    int written = 0;
    crypto->encrypt_update(context, out, &written, data, static_cast<int>(size));
  }
  crypto->context_free(context);
}
FRAME openssl_root(const Crypto* crypto) {
  static const std::vector<unsigned char> data = SomeBytes(32 << 10);
  static std::vector<unsigned char> out(data.size() + 64);
  openssl_digest(crypto, data.data(), data.size());
  for (const void* cipher : crypto->ciphers) {
    openssl_encrypt(crypto, cipher, data.data(), data.size(), out.data());
  }
  KEEP_FRAME;
}
bool RunOpenssl() {
  Crypto crypto{};
  if (!LoadCrypto(&crypto)) return false;
  while (TimeLeft()) openssl_root(&crypto);
  return true;
}
#endif

// ---- zstd
// ----------------------------------------------------------------------------------------

FRAME zstd_root(int level) {
  static const std::vector<unsigned char> data = SomeBytes(64 << 10);
  static std::vector<unsigned char> packed(ZSTD_compressBound(data.size()));
  static std::vector<unsigned char> again(data.size());
  const size_t size = ZSTD_compress(packed.data(), packed.size(), data.data(), data.size(), level);
  if (ZSTD_isError(size)) std::abort();
  if (ZSTD_decompress(again.data(), again.size(), packed.data(), size) != data.size()) std::abort();
  KEEP_FRAME;
}
bool RunZstd() {
  for (int i = 0; TimeLeft(); ++i) zstd_root(1 + i % 12);
  return true;
}

// ---- qsort: a callback from libc
// -----------------------------------------------------------------

FRAME qsort_leaf() {
  SpinUs(20);
  KEEP_FRAME;
}
extern "C" __attribute__((noinline)) int qsort_compare(const void* a, const void* b) {
  qsort_leaf();
  const int left = *static_cast<const int*>(a);
  const int right = *static_cast<const int*>(b);
  return left < right ? -1 : left > right;
}
FRAME qsort_root() {
  int numbers[100];
  for (int i = 0; i < 100; ++i) numbers[i] = i * 7919 % 101;
  std::qsort(numbers, 100, sizeof(int), qsort_compare);
  Use(numbers);
}
bool RunQsort() {
  while (TimeLeft()) qsort_root();
  return true;
}

// ---- libc: string functions in assembly, printf, malloc
// ------------------------------------------

FRAME libc_strings(char* a, char* b, size_t size) {
  for (int i = 0; i < 50; ++i) {
    std::memcpy(a, b, size);
    std::memmove(a + 3, a, size - 3);
    std::memset(b, 'x', size - 1);
    b[size - 1] = 0;
    Use(std::memchr(b, 0, size));
    Use(std::strchr(b, 'y'));
    Use(std::strstr(b, "xxxy"));
    Use(reinterpret_cast<void*>(std::strlen(b)));
    Use(reinterpret_cast<void*>(static_cast<intptr_t>(std::memcmp(a, b, size))));
  }
}
FRAME libc_format() {
  char text[200];
  for (int i = 0; i < 100; ++i) {
    std::snprintf(text, sizeof(text), "%d %.17g %s %a", i, 1.0 / (i + 3), "text", i * 0.1);
    Use(text);
    double number = std::strtod(text, nullptr);
    Use(&number);
  }
}
FRAME libc_memory() {
  void* blocks[200];
  for (int i = 0; i < 200; ++i) blocks[i] = std::malloc(static_cast<size_t>(i) * 97 + 1);
  for (void*& block : blocks) block = std::realloc(block, 300);
  for (void* block : blocks) std::free(block);
}
FRAME libc_system() {
  for (int i = 0; i < 100; ++i) {
    Use(reinterpret_cast<void*>(static_cast<intptr_t>(getppid())));
    char text[8];
    if (readlink("/proc/self/fd/0", text, sizeof(text)) < 0) KEEP_FRAME;
  }
}
FRAME libc_root() {
  static std::vector<char> a(4096), b(4096);
  libc_strings(a.data(), b.data(), a.size());
  libc_format();
  libc_memory();
  libc_system();
  KEEP_FRAME;
}
bool RunLibc() {
  while (TimeLeft()) libc_root();
  return true;
}
