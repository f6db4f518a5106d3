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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "limits.h"
#include "util.h"

#define PORT_TIMEOUT_MS 10000
#define RAMFS_SIGNATURE 0x858458f6
#define TMPFS_SIGNATURE 0x01021994

/*
 * pivot_root refuses the initramfs as the root, because it is the one mount without a parent. A bind
 * mount of it, moved over it, has one; nothing is copied.
 */
static void leave_initramfs(void) {
  struct statfs root;
  if (statfs("/", &root)) fatal("statfs /: %s", strerror(errno));
  if (root.f_type != RAMFS_SIGNATURE && root.f_type != TMPFS_SIGNATURE) return; /* a disk */
  if (mkdir("/.root", 0755)) fatal("make the new root: %s", strerror(errno));
  if (mount("/", "/.root", NULL, MS_BIND, NULL)) fatal("mount the new root: %s", strerror(errno));
  if (chdir("/.root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
    fatal("change to the new root: %s", strerror(errno));
  if (rmdir("/.root")) warn("remove /.root: %s", strerror(errno));
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
    /* Moving a process into a cgroup otherwise waits for a grace period of RCU: most of what an exec costs. */
    {"cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "favordynmods", true},
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

static void crashed(int number, siginfo_t *info, void *context) {
  static const char text[] = "agent: fatal: the agent crashed\n";
  (void)number, (void)context;
  /* Sent by another process: init takes none of those, and having a handler must not change that. */
  if (info->si_code <= 0 && info->si_pid != getpid()) return;
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  power_off();
  _exit(1);
}

static void catch_crashes(void) {
  static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
  struct sigaction action = {.sa_sigaction = crashed, .sa_flags = SA_SIGINFO};
  for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) sigaction(numbers[i], &action, NULL);
}

/*
 * The kernel gives init no descriptors when /dev/console is missing in the initramfs. A container may
 * open the console too and stop its output (TCOOFF): a line of ours is then lost, and we go on.
 */
static void open_console(void) {
  int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_NONBLOCK);
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
