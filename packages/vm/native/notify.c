// Two system calls of the VMM are answered by the guardian (seccomp user notification).
//
// open for reading and writing. QEMU takes some files by path only: the guest's memory, /dev/kvm.
// Its own user may open neither, so the guardian hands it the descriptor it was given. A
// template's memory is handed out read-only: QEMU asks for O_RDWR even for a private mapping, for
// which a read-only descriptor is enough, and so a broken-out guest cannot write into the memory
// of every other clone.
//
// fallocate on a template's memory. When a clone's guest reports free pages, QEMU 7.2 punches the
// hole into the file, under all clones, before it drops its own private copy. The guardian
// answers "done" for that one file without doing anything; QEMU goes on to madvise, which frees
// the private copy. On every other file the call goes ahead.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guardian.h"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "this architecture is not known"
#endif

bool notify_wanted(const struct options *o) { return o->injections_len > 0 || o->ram_fd >= 0; }

int notify_install(const struct options *o) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, o->ram_fd >= 0 ? SYS_fallocate : ~0U, 5, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, O_ACCMODE | O_CREAT),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_RDWR, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
  };
  struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

// The string at `address` in the thread that called; false when it cannot be read.
static bool read_path(pid_t thread, uint64_t address, char *path, size_t path_len) {
  char name[64];
  snprintf(name, sizeof name, "/proc/%d/mem", thread);
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  size_t len = 0;
  while (len < path_len) {
    // A page at a time: the next one may not be mapped.
    size_t part = 4096 - (size_t)((address + len) & 4095);
    if (part > path_len - len) part = path_len - len;
    ssize_t n = pread(fd, path + len, part, (off_t)(address + len));
    if (n <= 0) break;
    if (memchr(path + len, '\0', (size_t)n) != NULL) {
      close(fd);
      return true;
    }
    len += (size_t)n;
  }
  close(fd);
  return false;
}

static bool is_ram(const struct options *o, pid_t thread, uint64_t fd) {
  char name[64];
  struct stat theirs, ours;
  if (o->ram_fd < 0 || fd > OPEN_FILES_MAX) return false;
  snprintf(name, sizeof name, "/proc/%d/fd/%d", thread, (int)fd);
  return stat(name, &theirs) == 0 && fstat(o->ram_fd, &ours) == 0 && theirs.st_dev == ours.st_dev &&
         theirs.st_ino == ours.st_ino;
}

static bool inject(const struct options *o, int listener, const struct seccomp_notif *request) {
  char path[256];
  if (!read_path((pid_t)request->pid, request->data.args[1], path, sizeof path)) return false;
  for (int i = 0; i < o->injections_len; i++) {
    if (strcmp(path, o->injections[i].path) != 0) continue;
    struct seccomp_notif_addfd add = {
        .id = request->id,
        .flags = SECCOMP_ADDFD_FLAG_SEND,
        .srcfd = (uint32_t)o->injections[i].fd,
        .newfd_flags = (uint32_t)request->data.args[2] & O_CLOEXEC,
    };
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) >= 0;
  }
  return false;
}

void notify_answer(const struct options *o, int listener) {
  struct seccomp_notif request;
  memset(&request, 0, sizeof request);
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0) return;
  struct seccomp_notif_resp response = {.id = request.id};
  if (request.data.nr == SYS_openat) {
    if (inject(o, listener, &request)) return;
    response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  } else if (!is_ram(o, (pid_t)request.pid, request.data.args[0])) {
    response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  }
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}
