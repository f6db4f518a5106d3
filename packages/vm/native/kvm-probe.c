// Finds out whether /dev/kvm runs a guest's kernel code, rather than opening it and hoping.
//
// Software and nested KVMs exist that open, report API 12 and run user code, and then stall Linux for ever: they
// interpret whatever runs at CPL 0, hundreds of times slower, and lack instructions that every kernel uses. So a
// guest of three pieces of 64-bit kernel code is run: `cmpxchg16b`, `xrstor64`, and a loop of a million
// instructions, which takes well under a millisecond on hardware.
//
// Prints one line, {"ok":…,"reason":…,"api_version":…,"ms":…,"tsc_khz":…}, and exits with 0 either way. A child does
// the work, so that one that KVM does not let go of costs us no more than the time limit.
//
// Besides, it measures the time-stamp counter (0: there is none). An emulated guest reads the host's, and on a busy
// host fails to find out its rate; it is told, or else counts time in jiffies and cannot run KVM itself.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TIME_LIMIT_MS = 3000, LOOP_MS_MAX = 100, TSC_MEASURE_MS = 30, REASON_BYTES_MAX = 400 };

struct result {
  bool ok;
  int api_version;
  double ms;
  double tsc_khz;
  char reason[REASON_BYTES_MAX];
};

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

// Adds a sentence; any makes the result bad.
__attribute__((format(printf, 2, 3))) static void blame(struct result *result, const char *format, ...) {
  size_t used = strlen(result->reason);
  if (used > 0 && used + 2 < sizeof result->reason) {
    memcpy(result->reason + used, "; ", 3);
    used += 2;
  }
  va_list args;
  va_start(args, format);
  vsnprintf(result->reason + used, sizeof result->reason - used, format, args);
  va_end(args);
}

#if defined(__x86_64__)

// A reading of both clocks at one moment: the one of many that was interrupted least.
static void read_clocks(uint64_t *tsc, double *ms) {
  double narrowest = 1e9;
  for (int i = 0; i < 50; i++) {
    double before = now_ms();
    uint64_t ticks = __builtin_ia32_rdtsc();
    double after = now_ms();
    if (after - before >= narrowest) continue;
    narrowest = after - before;
    *tsc = ticks;
    *ms = (before + after) / 2;
  }
}

static double measure_tsc_khz(void) {
  uint64_t tsc[2];
  double ms[2];
  struct timespec pause = {.tv_nsec = TSC_MEASURE_MS * 1000000};
  read_clocks(&tsc[0], &ms[0]);
  nanosleep(&pause, NULL);
  read_clocks(&tsc[1], &ms[1]);
  return (double)(tsc[1] - tsc[0]) / (ms[1] - ms[0]);
}

enum {
  GUEST_BYTES = 2 * 1024 * 1024,
  PML4 = 0x1000,
  PDPT = 0x2000,
  PAGE_DIRECTORY = 0x3000,
  DATA = 0x4000, // 64-byte aligned and zero: an initial XSAVE area
  CODE = 0x8000,
  STACK = 0x10000,
  DONE_PORT = 0x80,
  LOOP_INSTRUCTIONS = 1000000,
};

struct piece {
  const char *name;
  const uint8_t *code;
  size_t len;
  bool timed;
};

// Each ends with `out %al, $0x80; hlt`.
static const uint8_t cmpxchg16b[] = {0x48, 0x0f, 0xc7, 0x0e, 0xe6, DONE_PORT, 0xf4}; // cmpxchg16b (%rsi)
static const uint8_t xrstor64[] = {0x48, 0x0f, 0xae, 0x2e, 0xe6, DONE_PORT, 0xf4};   // xrstor64 (%rsi)
static const uint8_t loop[] = {0xff, 0xc9, 0x75, 0xfc, 0xe6, DONE_PORT, 0xf4};       // 1: dec %ecx; jnz 1b

static const struct piece pieces[] = {
    {"cmpxchg16b", cmpxchg16b, sizeof cmpxchg16b, false},
    {"xrstor64", xrstor64, sizeof xrstor64, false},
    {"a loop", loop, sizeof loop, true},
};

static void map_identity(uint8_t *memory) {
  uint64_t entry = PDPT | 3;
  memcpy(memory + PML4, &entry, sizeof entry);
  entry = PAGE_DIRECTORY | 3;
  memcpy(memory + PDPT, &entry, sizeof entry);
  entry = 0x83; // present, writable, 2 MiB
  memcpy(memory + PAGE_DIRECTORY, &entry, sizeof entry);
}

static bool enter_long_mode(int vcpu) {
  struct kvm_sregs sregs;
  if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0) return false;
  struct kvm_segment code = {.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  struct kvm_segment data = {.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
  sregs.cs = code;
  sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
  sregs.cr3 = PML4;
  sregs.cr4 = 0x40620;    // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
  sregs.cr0 = 0x80050033; // PG, AM, WP, NE, ET, MP, PE
  sregs.efer = 0x500;     // LME, LMA
  return ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0;
}

static bool copy_cpuid(int kvm, int vcpu) {
  enum { ENTRIES = 256 };
  struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + ENTRIES * sizeof cpuid->entries[0]);
  if (cpuid == NULL) return false;
  cpuid->nent = ENTRIES;
  bool ok = ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) == 0 && ioctl(vcpu, KVM_SET_CPUID2, cpuid) == 0;
  free(cpuid);
  return ok;
}

static void run_piece(int vcpu, struct kvm_run *run, uint8_t *memory, const struct piece *piece, struct result *result) {
  memcpy(memory + CODE, piece->code, piece->len);
  struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rsi = DATA, .rflags = 2, .rax = 3, .rcx = LOOP_INSTRUCTIONS / 2};
  if (ioctl(vcpu, KVM_SET_REGS, &regs) < 0) {
    blame(result, "a vCPU's registers cannot be set (%s)", strerror(errno));
    return;
  }
  double begun = now_ms();
  double took;
  int status;
  do {
    status = ioctl(vcpu, KVM_RUN, 0);
    took = now_ms() - begun;
  } while (status < 0 && (errno == EINTR || errno == EAGAIN) && took < LOOP_MS_MAX);
  if (status < 0 && errno == EINTR && piece->timed && ioctl(vcpu, KVM_GET_REGS, &regs) == 0) {
    // How far it came tells what the rest would take.
    double done = LOOP_INSTRUCTIONS - 2.0 * (double)(uint32_t)regs.rcx;
    blame(result, "kernel code is interpreted: an instruction takes %.0f ns", took * 1e6 / (done > 1 ? done : 1));
  } else if (status < 0) {
    blame(result, "%s: KVM_RUN failed (%s)", piece->name, strerror(errno));
  } else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
    blame(result, "%s is not implemented (KVM internal error %u)", piece->name, run->internal.suberror);
  } else if (run->exit_reason == KVM_EXIT_SHUTDOWN) {
    blame(result, "%s raised a fault", piece->name);
  } else if (run->exit_reason != KVM_EXIT_IO || run->io.port != DONE_PORT) {
    blame(result, "%s ended with the exit reason %u", piece->name, run->exit_reason);
  } else if (piece->timed && took > LOOP_MS_MAX) {
    blame(result, "kernel code is interpreted: an instruction takes %.0f ns", took * 1e6 / LOOP_INSTRUCTIONS);
  }
}

static void try_guest(int kvm, struct result *result) {
  int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) {
    blame(result, "a VM cannot be created (%s)", strerror(errno));
    return;
  }
  uint8_t *memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct kvm_userspace_memory_region region = {.memory_size = GUEST_BYTES, .userspace_addr = (uintptr_t)memory};
  if (memory == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
    blame(result, "a VM cannot be given memory (%s)", strerror(errno));
    return;
  }
  map_identity(memory);
  int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  int run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (vcpu < 0 || run_bytes < (int)sizeof(struct kvm_run)) {
    blame(result, "a vCPU cannot be created (%s)", strerror(errno));
    return;
  }
  struct kvm_run *run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = 3}}};
  if (run == MAP_FAILED || !copy_cpuid(kvm, vcpu) || !enter_long_mode(vcpu) || ioctl(vcpu, KVM_SET_XCRS, &xcrs) < 0) {
    blame(result, "a vCPU cannot be put into long mode (%s)", strerror(errno));
    return;
  }
  for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) run_piece(vcpu, run, memory, &pieces[i], result);
}

#else

static double measure_tsc_khz(void) { return 0; }

// Other architectures have no half-working KVM that we know of: creating a VM is the test.
static void try_guest(int kvm, struct result *result) {
  int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) blame(result, "a VM cannot be created (%s)", strerror(errno));
}

#endif

static void on_alarm(int signal_number) { (void)signal_number; }

static void probe(struct result *result) {
  double begun = now_ms();
  // Brings KVM_RUN back every now and then, to look at the time.
  struct sigaction action = {.sa_handler = on_alarm};
  struct itimerval every = {.it_interval = {.tv_usec = LOOP_MS_MAX * 1000}, .it_value = {.tv_usec = LOOP_MS_MAX * 1000}};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &every, NULL);
  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) {
    blame(result, errno == ENOENT ? "there is no /dev/kvm" : "/dev/kvm cannot be opened (%s)", strerror(errno));
    return;
  }
  result->api_version = ioctl(kvm, KVM_GET_API_VERSION, 0);
  if (result->api_version != KVM_API_VERSION) {
    blame(result, "/dev/kvm speaks version %d of its interface, not %d", result->api_version, KVM_API_VERSION);
    return;
  }
  try_guest(kvm, result);
  result->ms = now_ms() - begun;
  result->ok = result->reason[0] == '\0';
  if (result->ok) blame(result, "a guest's kernel code runs at full speed");
}

int main(void) {
  struct result *result = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int done[2];
  if (result == MAP_FAILED || pipe2(done, O_CLOEXEC) < 0) return 1;
  pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) {
    close(done[0]);
    result->tsc_khz = measure_tsc_khz();
    probe(result);
    _exit(0);
  }
  close(done[1]);
  struct pollfd ended = {.fd = done[0], .events = POLLIN};
  bool in_time = poll(&ended, 1, TIME_LIMIT_MS) == 1;
  struct result copy = *result;
  copy.reason[sizeof copy.reason - 1] = '\0';
  if (!in_time) {
    kill(child, SIGKILL);
    copy.ok = false;
    blame(&copy, "a guest of a million instructions did not end within %d ms", TIME_LIMIT_MS);
  } else {
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status)) {
      copy.ok = false;
      blame(&copy, "the probe was ended by signal %d", WTERMSIG(status));
    }
  }
  // No reason of ours holds a character that JSON would have to escape.
  printf("{\"ok\":%s,\"reason\":\"%s\",\"api_version\":%d,\"ms\":%.1f,\"tsc_khz\":%.0f}\n", copy.ok ? "true" : "false", copy.reason,
         copy.api_version, copy.ms, copy.tsc_khz);
  return 0;
}
