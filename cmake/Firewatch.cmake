# SPDX-License-Identifier: Apache-2.0
# The four helpers, all mirrored on one shape: NAME, SRCS, DEPS (public), PRIVATE_DEPS.
#   firewatch_library(base SRCS status.cc ... DEPS absl::status)      target firewatch_base, alias firewatch::base
#   firewatch_test(base SRCS status_test.cc ... DEPS firewatch::base)  one gtest binary per folder: base_test
#   firewatch_fuzz(pprof_reader SRCS pprof_fuzz.cc CORPUS dir DEPS ..) libFuzzer target pprof_reader_fuzz
#   firewatch_bench / firewatch_bpf_object / firewatch_binary
include(CMakeParseArguments)

add_library(firewatch_flags INTERFACE)
# Includes are written from the root of the project ("profile/ids.h"): the folder is in the text,
# so the arrow between two rooms can be read (and checked) from the include line.
target_include_directories(firewatch_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(firewatch_flags INTERFACE
  # Designated initializers leave the rest at its default on purpose.
  -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Wno-missing-field-initializers
  -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(firewatch_flags INTERFACE -Wthread-safety)
endif()
if(FIREWATCH_WERROR)
  target_compile_options(firewatch_flags INTERFACE -Werror)
endif()
if(FIREWATCH_SANITIZE)
  # -O1 keeps the sanitized suite fast; vptr needs RTTI that Debian's libraries do not all have.
  target_compile_options(firewatch_flags INTERFACE
    -fsanitize=${FIREWATCH_SANITIZE} -fno-sanitize=vptr -fno-sanitize-recover=undefined -O1 -gline-tables-only)
  string(REPLACE ",fuzzer-no-link" "" FIREWATCH_LINK_SANITIZE "${FIREWATCH_SANITIZE}")
  target_link_options(firewatch_flags INTERFACE -fsanitize=${FIREWATCH_LINK_SANITIZE})
endif()
find_program(LLD NAMES ld.lld-19)
if(LLD AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
  add_link_options(-fuse-ld=lld-19)
endif()
add_link_options(-Wl,--build-id=sha1)

function(firewatch_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(firewatch_${name} STATIC ${ARG_SRCS})
  add_library(firewatch::${name} ALIAS firewatch_${name})
  target_link_libraries(firewatch_${name} PUBLIC firewatch_flags ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

function(firewatch_binary name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE firewatch_flags ${ARG_DEPS})
endfunction()

# BPF marks tests that need privileges; they carry the ctest label "bpf" and skip with a reason.
function(firewatch_test name)
  cmake_parse_arguments(ARG "BPF" "" "SRCS;DEPS" ${ARGN})
  if(NOT FIREWATCH_TESTS)
    return()
  endif()
  add_executable(${name}_test ${ARG_SRCS})
  target_link_libraries(${name}_test PRIVATE firewatch_flags ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name}_test COMMAND ${name}_test WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(ARG_BPF)
    set_tests_properties(${name}_test PROPERTIES LABELS bpf)
  endif()
endfunction()

function(firewatch_bench name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(NOT FIREWATCH_BENCHMARKS)
    return()
  endif()
  add_executable(${name}_bench ${ARG_SRCS})
  target_link_libraries(${name}_bench PRIVATE firewatch_flags ${ARG_DEPS} benchmark::benchmark_main)
endfunction()

# CORPUS names a committed folder (relative to the list file). ./dev test runs every *_fuzz binary.
function(firewatch_fuzz name)
  cmake_parse_arguments(ARG "" "CORPUS" "SRCS;DEPS" ${ARGN})
  if(NOT FIREWATCH_FUZZERS)
    return()
  endif()
  add_executable(${name}_fuzz ${ARG_SRCS})
  target_link_libraries(${name}_fuzz PRIVATE firewatch_flags ${ARG_DEPS})
  target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  set_property(GLOBAL APPEND PROPERTY FIREWATCH_FUZZ_TARGETS
    "${name}_fuzz ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_CORPUS}")
endfunction()

# Compiles NAME.bpf.c with clang 19, strips DWARF (keeps BTF), makes the libbpf skeleton NAME.skel.h.
# The interface target firewatch_bpf_NAME carries the include path of the skeleton.
function(firewatch_bpf_object name)
  set(source ${CMAKE_CURRENT_SOURCE_DIR}/${name}.bpf.c)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o)
  set(skeleton ${CMAKE_CURRENT_BINARY_DIR}/skeleton/bpf/${name}.skel.h)
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h ${CMAKE_CURRENT_SOURCE_DIR}/include/*.h)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CLANG_BPF} -g -O2 -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -Wall -Wextra -Wno-unused-parameter -Werror
            -I${CMAKE_SOURCE_DIR} -I/usr/include/x86_64-linux-gnu -c ${source} -o ${object}.full
    COMMAND ${BPFTOOL} gen object ${object} ${object}.full
    DEPENDS ${source} ${headers}
    COMMENT "BPF ${name}" VERBATIM)
  add_custom_command(
    OUTPUT ${skeleton}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/skeleton/bpf
    COMMAND sh -c "${BPFTOOL} gen skeleton ${object} name ${name}_bpf > ${skeleton}"
    DEPENDS ${object} VERBATIM)
  add_custom_target(firewatch_bpf_${name}_skeleton DEPENDS ${skeleton})
  add_library(firewatch_bpf_${name} INTERFACE)
  add_library(firewatch::bpf_${name} ALIAS firewatch_bpf_${name})
  add_dependencies(firewatch_bpf_${name} firewatch_bpf_${name}_skeleton)
  target_include_directories(firewatch_bpf_${name} SYSTEM INTERFACE ${CMAKE_CURRENT_BINARY_DIR}/skeleton)
  target_link_libraries(firewatch_bpf_${name} INTERFACE PkgConfig::LIBBPF)
endfunction()

# protoc output for FILES; SERVICE adds a library NAME_service with the gRPC stubs, apart from the
# messages so that the agent does not load gRPC. Generated code gets no warnings of ours.
function(firewatch_proto name)
  cmake_parse_arguments(ARG "SERVICE" "" "FILES" ${ARGN})
  set(generated)
  set(stubs)
  foreach(file ${ARG_FILES})
    get_filename_component(stem ${file} NAME_WE)
    set(out ${CMAKE_BINARY_DIR}/generated/proto/${stem})
    set(outputs ${out}.pb.cc ${out}.pb.h)
    set(grpc_args)
    if(ARG_SERVICE)
      list(APPEND outputs ${out}.grpc.pb.cc ${out}.grpc.pb.h)
      set(grpc_args --grpc_out=${CMAKE_BINARY_DIR}/generated --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN})
    endif()
    add_custom_command(OUTPUT ${outputs}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/generated
      COMMAND ${Protobuf_PROTOC_EXECUTABLE} -I${CMAKE_SOURCE_DIR} --cpp_out=${CMAKE_BINARY_DIR}/generated ${grpc_args} proto/${file}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${file} VERBATIM)
    list(APPEND generated ${out}.pb.cc ${out}.pb.h)
    if(ARG_SERVICE)
      list(APPEND stubs ${out}.grpc.pb.cc ${out}.grpc.pb.h)
    endif()
  endforeach()
  add_library(firewatch_${name} STATIC ${generated})
  add_library(firewatch::${name} ALIAS firewatch_${name})
  target_include_directories(firewatch_${name} SYSTEM PUBLIC ${CMAKE_BINARY_DIR}/generated)
  target_link_libraries(firewatch_${name} PUBLIC protobuf::libprotobuf)
  if(ARG_SERVICE)
    add_library(firewatch_${name}_service STATIC ${stubs})
    add_library(firewatch::${name}_service ALIAS firewatch_${name}_service)
    add_dependencies(firewatch_${name}_service firewatch_${name})
    target_link_libraries(firewatch_${name}_service PUBLIC firewatch_${name} PkgConfig::GRPCPP)
  endif()
endfunction()
