# SPDX-License-Identifier: Apache-2.0
# Every package that Firewatch needs, all from Debian 12. Nothing is downloaded here.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Boost 1.81 REQUIRED)  # header-only use: Beast and Asio
find_package(ZLIB REQUIRED)
# Debian's config files of these two look for packages that only static users need, so pkg-config.
pkg_check_modules(ROCKSDB REQUIRED IMPORTED_TARGET rocksdb)
pkg_check_modules(GRPCPP REQUIRED IMPORTED_TARGET grpc++)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(LIBLZMA REQUIRED IMPORTED_TARGET liblzma)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
pkg_check_modules(LIBBPF REQUIRED IMPORTED_TARGET libbpf)
pkg_check_modules(LIBELF REQUIRED IMPORTED_TARGET libelf)
pkg_check_modules(LIBDW REQUIRED IMPORTED_TARGET libdw)
pkg_check_modules(SECCOMP REQUIRED IMPORTED_TARGET libseccomp)
pkg_check_modules(YAML_CPP REQUIRED IMPORTED_TARGET yaml-cpp)
pkg_check_modules(CURL REQUIRED libcurl)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)
pkg_check_modules(LIBUNWIND REQUIRED libunwind-ptrace)
if(FIREWATCH_TESTS OR FIREWATCH_FUZZERS)
  find_package(GTest REQUIRED)
endif()
if(FIREWATCH_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()

find_program(CLANG_BPF NAMES clang-19 REQUIRED)
find_program(BPFTOOL NAMES bpftool PATHS /usr/sbin REQUIRED)
find_program(GRPC_CPP_PLUGIN NAMES grpc_cpp_plugin REQUIRED)

# libLLVMDemangle is one small static archive; the rest of LLVM is not linked.
find_library(LLVM_DEMANGLE LLVMDemangle PATHS /usr/lib/llvm-19/lib REQUIRED NO_DEFAULT_PATH)
add_library(firewatch_llvm_demangle INTERFACE)
target_link_libraries(firewatch_llvm_demangle INTERFACE ${LLVM_DEMANGLE})
target_include_directories(firewatch_llvm_demangle SYSTEM INTERFACE /usr/lib/llvm-19/include)

# Unwinding of other processes only: libunwind.so itself, which pkg-config adds, brings an
# _Unwind_RaiseException of its own that must not stand in front of the compiler's.
find_library(LIBUNWIND_PTRACE unwind-ptrace REQUIRED)
find_library(LIBUNWIND_REMOTE unwind-x86_64 REQUIRED)
add_library(firewatch_libunwind_remote INTERFACE)
add_library(firewatch::libunwind_remote ALIAS firewatch_libunwind_remote)
target_link_libraries(firewatch_libunwind_remote INTERFACE ${LIBUNWIND_PTRACE} ${LIBUNWIND_REMOTE}
  PkgConfig::LIBLZMA)  # libunwind-ptrace.so needs it without saying so

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
