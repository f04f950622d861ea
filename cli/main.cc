// SPDX-License-Identifier: Apache-2.0
// The `firewatch` command.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/logging.h"
#include "base/status.h"
#include "cli/connections.h"
#include "cli/debuginfo.h"
#include "cli/doctor.h"
#include "cli/doctor_modules.h"
#include "cli/doctor_tables.h"
#include "cli/record.h"
#include "cli/stacks.h"
#include "cli/symbolize.h"
#include "cli/xdp.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::cli {
namespace {

int Record(const RecordOptions& options) {
  if (options.pids.empty() && options.command.empty() && !options.all) {
    fmt::print(
        stderr,
        "firewatch record: what? Give --pid P, -- COMMAND, or --all for the whole machine\n");
    return 2;
  }
  if (int{!options.pids.empty()} + int{!options.command.empty()} + int{options.all} > 1) {
    fmt::print(stderr, "firewatch record: --pid, --all and a command exclude one another\n");
    return 2;
  }
  const absl::StatusOr<int> code = RunRecord(options);
  if (code.ok()) return *code;
  fmt::print(stderr, "firewatch record: {}\n", base::Message(code.status()));
  if (code.status().code() == absl::StatusCode::kPermissionDenied) {
    fmt::print(
        stderr,
        "  Sampling needs root, or CAP_BPF and CAP_PERFMON.\n"
        "  firewatch doctor                     lists what is allowed here and how to mend it\n"
        "  firewatch-agent --replay FILE        works without privilege on recorded events\n"
        "  go tool pprof, the page, the server  need none either\n");
  }
  return 1;
}

void AddStacksOptions(CLI::App* doctor, StacksOptions* stacks) {
  CLI::Option* pid =
      doctor
          ->add_option("--stacks", stacks->pid,
                       "Compare our unwinder with libunwind on this process: stops its threads at "
                       "random moments, for about a millisecond each")
          ->type_name("PID")
          ->check(CLI::PositiveNumber);
  doctor->add_option("--stops", stacks->stops, "How often to stop a thread")
      ->needs(pid)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  doctor->add_flag("--children", stacks->children, "Its descendants, too")->needs(pid);
  doctor
      ->add_flag("--judge", stacks->judge,
                 "Ask gdb where the two disagree: the process stands still for seconds")
      ->needs(pid);
  doctor->add_flag("--functions", stacks->functions, "Folded stacks in the JSON form")->needs(pid);
  doctor->add_flag("--json", stacks->json, "For programs to read")->needs(pid);
  doctor->add_option("--cache", stacks->cache_directory, "Where tables are kept")->needs(pid);
  doctor->add_option("--seed", stacks->seed, "Of the random moments")->needs(pid);
}

// The command that was given, or nothing.
using XdpRun = int (*)(const XdpOptions&);
void AddXdpCommands(CLI::App* app, XdpOptions* options, XdpRun* run) {
  CLI::App* xdp = app->add_subcommand("xdp", "The packet firewall of a running agent.");
  xdp->require_subcommand(1);
  const auto add = [&](const std::string& name, const std::string& text, XdpRun what) {
    CLI::App* command = xdp->add_subcommand(name, text);
    command->add_option("--agent", options->agent, "Page of that agent")
        ->type_name("ADDR")
        ->capture_default_str();
    command
        ->add_option("--token-file", options->token_file,
                     "What allows to change rules; /run/firewatch/agent-PORT.token unless given")
        ->type_name("FILE");
    command->callback([run, what] { *run = what; });
    return command;
  };
  CLI::App* load =
      add("load", "Put the rules of a file in force, whole or not at all.", RunXdpLoad);
  load->add_option("file", options->file, "Rules in YAML (docs/firewall.md)")->required();
  load->add_option("--interface", options->interface, "Where packets come in")
      ->type_name("IF")
      ->required();
  load->add_flag("--dry-run", options->dry_run, "Count what would be dropped, drop nothing");
  load->add_option("--confirm-within", options->confirm_within,
                   "Undo it after this time unless confirmed: 60s")
      ->type_name("DURATION");
  load->add_flag("--allow-default-route", options->allow_default_route,
                 "Also where the default route goes, without confirmation");
  load->add_flag("--replace", options->replace, "Put out another program that is attached there");
  load->add_option("--mode", options->mode, "auto, native, generic or tc")
      ->check(CLI::IsMember({"auto", "native", "generic", "tc"}))
      ->capture_default_str();
  for (CLI::App* command : {add("list", "Rules in force, in the order they are asked.", RunXdpList),
                            add("stats", "Packets and bytes per rule.", RunXdpStats)}) {
    command->add_option("--interface", options->interface, "Only this one")->type_name("IF");
    command->add_flag("--json", options->json, "For programs to read");
  }
  CLI::App* events = add("events", "Sampled drops, the newest last.", RunXdpEvents);
  events->add_option("--limit", options->limit, "At most so many")->capture_default_str();
  events->add_flag("--json", options->json, "For programs to read");
  for (CLI::App* command :
       {add("confirm", "Keep what was loaded with --confirm-within.", RunXdpConfirm),
        add("unload", "Detach, and remove all of it.", RunXdpUnload)}) {
    command->add_option("--interface", options->interface, "Which one")
        ->type_name("IF")
        ->required();
  }
}

int Main(int argc, char** argv) {
  base::SetupLogging("warn");
  CLI::App app{"Firewatch: profile what this machine's CPUs are doing."};
  app.set_version_flag("--version", FIREWATCH_VERSION);
  app.require_subcommand(1);

  RecordOptions record;
  CLI::App* record_command = app.add_subcommand(
      "record", "Profile a command, processes or the whole machine into a file; needs no server.");
  record_command->add_option("-p,--pid", record.pids, "Process to watch, with its children")
      ->delimiter(',');
  record_command->add_flag("-a,--all", record.all, "Every process of the machine");
  record_command
      ->add_option("-s,--seconds", record.seconds,
                   "Stop after this time (default: when the command or the processes end)")
      ->check(CLI::PositiveNumber);
  CLI::Option* hz_option =
      record_command->add_option("--hz", record.hz, "Samples per second and CPU")
          ->check(CLI::Range(1, 999))
          ->capture_default_str();
  record_command
      ->add_option("--sampler", record.sampler,
                   "auto, ebpf, perf (copies stacks) or ptrace (stops threads); auto takes the "
                   "first that is allowed")
      ->check(CLI::IsMember({"auto", "ebpf", "perf", "ptrace"}))
      ->capture_default_str();
  record_command
      ->add_option("--stack-bytes", record.stack_bytes, "perf: bytes of stack copied per sample")
      ->check(CLI::Range(1024, 65'528))
      ->capture_default_str();
  record_command
      ->add_option("--memory-limit", record.memory_limit_bytes,
                   "Bound of heap and BPF maps together: 64MiB, 1GiB (default: 256MiB)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::Range(uint64_t{16} << 20, uint64_t{1} << 40));
  record_command->add_option("-o,--output", record.output, "File to write; - is standard output")
      ->capture_default_str();
  record_command->add_flag("--folded", record.folded,
                           "Write folded stacks (root;caller;leaf count) instead of pprof");
  record_command->add_option("--cache", record.cache_directory, "Where symbol indexes are kept");
  record_command
      ->add_option("--lines", record.lines,
                   "on or off: files, lines and inlined functions, from debug information")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  record_command->add_flag("-q,--quiet", record.quiet, "No progress bar and no summary");
  record_command->add_option("command", record.command, "Command to start and watch, after --");
  record_command->positionals_at_end();

  bool doctor_quiet = false;
  CLI::App* doctor_command =
      app.add_subcommand("doctor", "What this kernel and these privileges allow, line by line.");
  doctor_command->add_flag("-q,--quiet", doctor_quiet,
                           "Only the exit code: 0 can sample, 1 cannot");

  bool doctor_sampler = false;
  doctor_command->add_flag("--sampler", doctor_sampler,
                           "Only the sampler that would be used: ebpf, perf, ptrace or none");

  StacksOptions stacks;
  AddStacksOptions(doctor_command, &stacks);

  bool doctor_tables = false;
  std::string agent_address = "127.0.0.1:7172";
  CLI::Option* tables_flag = doctor_command->add_flag(
      "--tables", doctor_tables, "The unwind tables and the memory of a running agent");
  bool doctor_modules = false;
  doctor_command
      ->add_flag("--modules", doctor_modules, "The modules of a running agent and what they cost")
      ->excludes(tables_flag);
  doctor_command->add_option("--agent", agent_address, "Page of that agent, for these two")
      ->capture_default_str();

  ConnectionsOptions connections;
  CLI::App* connections_command = app.add_subcommand(
      "connections", "TCP connections of this machine: who talks to whom, and how well.");
  connections_command->add_flag("-f,--follow", connections.follow,
                                "Print what happens, as it happens");
  connections_command->add_option("-p,--pid", connections.pid, "Of this process alone");
  connections_command->add_option("-n,--limit", connections.limit, "Lines of each table")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  connections_command->add_option("--sort", connections.sort, "bytes, retransmits, rtt or age")
      ->check(CLI::IsMember({"bytes", "retransmits", "rtt", "age"}))
      ->capture_default_str();
  connections_command->add_option("-o,--output", connections.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  connections_command->add_option("--agent", connections.agent, "Page of the agent")
      ->type_name("ADDR")
      ->capture_default_str();

  DebugInfoOptions debuginfo;
  CLI::App* debuginfo_command = app.add_subcommand(
      "debuginfo", "Give a server the files by which it names what agents could not name.");
  debuginfo_command->require_subcommand(1);
  CLI::App* upload_command = debuginfo_command->add_subcommand(
      "upload", "Send executables or debug files; profiles stored before get their names, too.");
  upload_command
      ->add_option("file", debuginfo.files,
                   "Executable, library or debug file; of a stripped one its debug file is looked "
                   "for, as gdb does")
      ->required();
  upload_command
      ->add_option("--wait", debuginfo.wait_seconds,
                   "Seconds to wait until the server has read a file")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  CLI::App* list_command =
      debuginfo_command->add_subcommand("list", "What the server has, and what came of it.");
  for (CLI::App* command : {upload_command, list_command}) {
    command->add_option("--server", debuginfo.server, "Its address or URL")
        ->type_name("ADDR")
        ->capture_default_str();
  }
  XdpOptions xdp;
  XdpRun xdp_run = nullptr;
  AddXdpCommands(&app, &xdp, &xdp_run);
  // Only for the list of commands: it has llvm-symbolizer's grammar, see main().
  app.add_subcommand("symbolize",
                     "Functions and lines of addresses; a swap-in for llvm-symbolizer (--help).");

  CLI11_PARSE(app, argc, argv);
  record.hz_given = hz_option->count() > 0;
  if (xdp_run != nullptr) return xdp_run(xdp);
  if (upload_command->parsed()) return RunDebugInfoUpload(debuginfo);
  if (list_command->parsed()) return RunDebugInfoList(debuginfo);
  if (record_command->parsed()) return Record(record);
  if (connections_command->parsed()) return RunConnections(connections);
  if (stacks.pid != 0) return RunStacks(stacks);
  if (doctor_tables) return RunDoctorTables(agent_address);
  if (doctor_modules) return RunDoctorModules(agent_address);
  if (doctor_sampler) return PrintBestSampler();
  return RunDoctor(doctor_quiet);
}

}  // namespace
}  // namespace firewatch::cli

int main(int argc, char** argv) {
  // The hidden role of every Firewatch binary that symbolizes: the sandboxed parser of ELF files.
  if (argc == 3 && std::string_view(argv[1]) == "--symbol-helper") {
    return firewatch::symbolizer::RunSymbolHelper(std::atoi(argv[2]));
  }
  // A link of this name serves tools that insist on it (ASAN_SYMBOLIZER_PATH).
  const std::string_view name = argv[0] == nullptr ? "" : argv[0];
  const bool as_llvm = name.substr(name.rfind('/') + 1).starts_with("llvm-symbolizer");
  if (as_llvm || (argc >= 2 && std::string_view(argv[1]) == "symbolize")) {
    return firewatch::cli::RunSymbolize(
        std::vector<std::string_view>(argv + (as_llvm ? 1 : 2), argv + argc));
  }
  return firewatch::cli::Main(argc, argv);
}
