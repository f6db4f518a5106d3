#define _GNU_SOURCE
#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "limits.h"
#include "util.h"

#define PORT_TIMEOUT_MS 10000
#define ROOT_FILES_MAX 1024u /* a handful in practice */
#define RAMFS_SIGNATURE 0x858458f6
#define TMPFS_SIGNATURE 0x01021994

/* --- Off the initramfs: pivot_root refuses its root -------------------------------------------- */

static void copy_file(int from_dir, int to_dir, const char *name, const struct stat *status) {
  int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  int to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  off_t left = status->st_size;
  if (from < 0 || to < 0) fatal("copy %s from the initramfs: %s", name, strerror(errno));
  while (left > 0) {
    ssize_t count = sendfile(to, from, NULL, (size_t)left);
    if (count <= 0) fatal("copy %s from the initramfs: %s", name, strerror(errno));
    left -= count;
  }
  if (fchmod(to, status->st_mode & 07777)) fatal("copy %s from the initramfs: %s", name, strerror(errno));
  close(from);
  close(to);
}

/* Moves what is in one directory to the other; the initramfs's memory is given back as we go. */
static void move_tree(int from_dir, int to_dir, dev_t device, unsigned *count) {
  DIR *directory = fdopendir(dup(from_dir));
  struct dirent *entry;
  if (!directory) fatal("read the initramfs: %s", strerror(errno));
  while ((entry = readdir(directory))) {
    const char *name = entry->d_name;
    struct stat status;
    if (!strcmp(name, ".") || !strcmp(name, "..") || fstatat(from_dir, name, &status, AT_SYMLINK_NOFOLLOW)) continue;
    if (status.st_dev != device) continue; /* the new root itself, or /dev mounted by the kernel */
    if (++*count > ROOT_FILES_MAX) fatal("the initramfs holds more than %u files", ROOT_FILES_MAX);
    if (S_ISDIR(status.st_mode)) {
      int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), to;
      mkdirat(to_dir, name, status.st_mode & 07777);
      to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (from < 0 || to < 0) fatal("copy %s from the initramfs: %s", name, strerror(errno));
      move_tree(from, to, device, count);
      close(from);
      close(to);
      unlinkat(from_dir, name, AT_REMOVEDIR);
      continue;
    }
    if (S_ISREG(status.st_mode)) {
      copy_file(from_dir, to_dir, name, &status);
    } else if (S_ISLNK(status.st_mode)) {
      char target[PATH_SIZE_MAX];
      ssize_t size = readlinkat(from_dir, name, target, sizeof target - 1);
      if (size < 0) fatal("copy %s from the initramfs: %s", name, strerror(errno));
      target[size] = 0;
      if (symlinkat(target, to_dir, name)) fatal("copy %s from the initramfs: %s", name, strerror(errno));
    }
    unlinkat(from_dir, name, 0);
  }
  closedir(directory);
}

static void leave_initramfs(void) {
  struct statfs root;
  struct stat status;
  unsigned count = 0;
  if (statfs("/", &root)) fatal("statfs /: %s", strerror(errno));
  if (root.f_type != RAMFS_SIGNATURE && root.f_type != TMPFS_SIGNATURE) return; /* a disk */
  if (mkdir("/.root", 0755)) fatal("make the new root: %s", strerror(errno));
  if (mount("root", "/.root", "tmpfs", 0, "mode=0755")) fatal("mount the new root: %s", strerror(errno));
  int from = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), to = open("/.root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (from < 0 || to < 0 || fstat(from, &status)) fatal("open the root: %s", strerror(errno));
  move_tree(from, to, status.st_dev, &count);
  if (fchdir(to) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
    fatal("change to the new root: %s", strerror(errno));
  close(from);
  close(to);
}

/* --- Mounts -------------------------------------------------------------------------------- */

static const struct {
  const char *source, *target, *type;
  unsigned long flags;
  const char *data;
  bool optional; /* a kernel may be without it */
} mounts[] = {
    {"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
    {"sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
    {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755", false},
    {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666", false},
    {"shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
    {"run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755", false},
    {"tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
};

static void mount_all(void) {
  static const struct {
    const char *target, *path;
  } links[] = {{"/proc/self/fd", "/dev/fd"},
               {"/proc/self/fd/0", "/dev/stdin"},
               {"/proc/self/fd/1", "/dev/stdout"},
               {"/proc/self/fd/2", "/dev/stderr"},
               {"pts/ptmx", "/dev/ptmx"}};
  for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
    mkdir(mounts[i].target, 0755);
    if (!mount(mounts[i].source, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].data)) continue;
    if (mounts[i].optional && errno == ENODEV) continue;
    if (errno != EBUSY) fatal("mount %s: %s", mounts[i].target, strerror(errno));
  }
  /* devtmpfs makes a node of its own; containers and pts want the one of devpts. */
  unlink("/dev/ptmx");
  for (size_t i = 0; i < ARRAY_SIZE(links); i++)
    if (symlink(links[i].target, links[i].path) && errno != EEXIST) warn("link %s: %s", links[i].path, strerror(errno));
  /* So that a mount of ours is not carried into every container's namespace. */
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) warn("make the root private: %s", strerror(errno));
}

static void enable_controllers(void) {
  char names[512], command[520];
  if (read_file("/sys/fs/cgroup/cgroup.controllers", names, sizeof names) < 0) return;
  char *rest = names, *name;
  while ((name = strsep(&rest, " \n"))) {
    if (!*name) continue;
    snprintf(command, sizeof command, "+%s", name);
    int error = write_file("/sys/fs/cgroup/cgroup.subtree_control", command);
    if (error) warn("enable the %s controller: %s", name, strerror(-error));
  }
}

static void loopback_up(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request)) warn("bring up lo: %s", strerror(errno));
  close_fd(&fd);
}

/* --- The end of everything ----------------------------------------------------------------- */

static void crashed(int number) {
  static const char text[] = "agent: fatal: the agent crashed\n";
  (void)number;
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  power_off();
  _exit(1);
}

static void catch_crashes(void) {
  static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
  struct sigaction action = {.sa_handler = crashed};
  for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) sigaction(numbers[i], &action, NULL);
}

/* The kernel gives init no descriptors when /dev/console is missing in the initramfs. */
static void open_console(void) {
  int fd = open("/dev/console", O_RDWR | O_NOCTTY);
  if (fd < 0) fd = open("/dev/null", O_RDWR);
  for (int i = 0; fd >= 0 && i < 3; i++)
    if (fd != i) dup2(fd, i);
  if (fd > 2) close(fd);
}

void init_system(void) {
  catch_crashes();
  leave_initramfs();
  umask(0);
  mount_all();
  umask(022);
  open_console();
  enable_controllers();
  loopback_up();
  reboot(RB_DISABLE_CAD);
}

/* --- The port ------------------------------------------------------------------------------ */

static bool find_port(const char *wanted, char *path, size_t size) {
  DIR *directory = opendir("/sys/class/virtio-ports");
  struct dirent *entry;
  bool found = false;
  if (!directory) return false;
  while (!found && (entry = readdir(directory))) {
    char attribute[300], name[128];
    if (entry->d_name[0] == '.') continue;
    snprintf(attribute, sizeof attribute, "/sys/class/virtio-ports/%s/name", entry->d_name);
    if (read_file(attribute, name, sizeof name) <= 0) continue;
    name[strcspn(name, "\n")] = 0;
    found = !strcmp(name, wanted);
    if (found) snprintf(path, size, "/dev/%s", entry->d_name);
  }
  closedir(directory);
  return found;
}

const char *init_find_port(const char *name) {
  static char path[300];
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
  /* Listening first, so that a port which comes in between is not missed. */
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address)) fatal("listen for devices: %s", strerror(errno));
  uint64_t deadline = now_ns() + PORT_TIMEOUT_MS * UINT64_C(1000000);
  while (!find_port(name, path, sizeof path)) {
    char event[4096];
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    uint64_t now = now_ns();
    if (now >= deadline) fatal("no virtio-serial port named %s", name);
    poll(&wait, 1, (int)((deadline - now) / 1000000) + 1);
    while (recv(fd, event, sizeof event, 0) > 0) {
    }
  }
  close(fd);
  return path;
}
