/*
 * WaitDevice. The kernel's uevents say when to look; /sys says what is there. A disk can be seen in
 * /sys a moment before it can be opened, so it counts once an open succeeds.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "limits.h"
#include "loop.h"
#include "ops.h"

struct device_wait {
  struct list link;
  struct op_wait wait;
  struct timer timer;
  bool by_lun;
  uint32_t lun;
  char serial[64];
  char what[100];
};

static struct list waits = LIST_INIT(waits);
static struct source uevents = {.fd = -1};

/* The number of the first host adapter that is virtio-scsi, or -1. */
static int first_virtio_scsi(void) {
  DIR *directory = opendir("/sys/class/scsi_host");
  struct dirent *entry;
  int first = -1;
  while (directory && (entry = readdir(directory))) {
    char path[320], driver[32];
    int number;
    if (sscanf(entry->d_name, "host%d", &number) != 1) continue;
    snprintf(path, sizeof path, "/sys/class/scsi_host/%s/proc_name", entry->d_name);
    if (read_file(path, driver, sizeof driver) <= 0 || strcmp(driver, "virtio_scsi\n")) continue;
    if (first < 0 || number < first) first = number;
  }
  if (directory) closedir(directory);
  return first;
}

static bool matches(const struct device_wait *wait, const char *name, int host) {
  char path[320], text[PATH_SIZE_MAX];
  if (wait->by_lun) {
    unsigned at_host, channel, target;
    unsigned long long lun;
    snprintf(path, sizeof path, "/sys/block/%s/device", name);
    ssize_t size = readlink(path, text, sizeof text - 1);
    if (size <= 0) return false;
    text[size] = 0;
    const char *address = strrchr(text, '/');
    return sscanf(address ? address + 1 : text, "%u:%u:%u:%llu", &at_host, &channel, &target, &lun) == 4 && host >= 0 &&
           at_host == (unsigned)host && lun == wait->lun;
  }
  snprintf(path, sizeof path, "/sys/block/%s/serial", name);
  if (read_file(path, text, sizeof text) <= 0) return false;
  text[strcspn(text, "\n")] = 0;
  return !strcmp(text, wait->serial);
}

static bool find(const struct device_wait *wait, char *path, size_t size) {
  DIR *directory = opendir("/sys/block");
  struct dirent *entry;
  bool found = false;
  int host = wait->by_lun ? first_virtio_scsi() : -1;
  while (directory && !found && (entry = readdir(directory))) {
    if (entry->d_name[0] == '.' || !matches(wait, entry->d_name, host)) continue;
    snprintf(path, size, "/dev/%s", entry->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    found = fd >= 0;
    close_fd(&fd);
  }
  if (directory) closedir(directory);
  return found;
}

static void finish(struct device_wait *wait) {
  timer_cancel(&wait->timer);
  list_remove(&wait->link);
  free(wait);
  if (!list_empty(&waits)) return;
  int fd = uevents.fd;
  source_remove(&uevents);
  close_fd(&fd);
}

static void check(struct device_wait *wait) {
  char path[300];
  if (!wait->wait.batch) { /* nobody asks any more */
    finish(wait);
  } else if (find(wait, path, sizeof path)) {
    OpResult result = {.which_result = OpResult_device_tag, .result.device.path = path};
    batch_op_done(&wait->wait, &result);
    finish(wait);
  }
}

static void uevent_ready(struct source *source, uint32_t events) {
  char event[8192];
  bool relevant = false;
  (void)events;
  for (;;) {
    ssize_t size = recv(source->fd, event, sizeof event - 1, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == ENOBUFS) { /* some were lost: look */
      relevant = true;
      continue;
    }
    if (size <= 0) break;
    event[size] = 0;
    if (strstr(event, "/block/")) relevant = true; /* "add@/devices/…/block/sda" */
  }
  if (!relevant) return;
  for (struct list *at = waits.next, *next; at != &waits; at = next) {
    next = at->next;
    check(container_of(at, struct device_wait, link));
  }
}

static void timed_out(struct timer *timer) {
  struct device_wait *wait = container_of(timer, struct device_wait, timer);
  batch_op_failed(&wait->wait, ETIMEDOUT, "wait for %s", wait->what);
  finish(wait);
}

/* Listening before looking: a device that comes in between is not missed. */
static int listen_for_uevents(void) {
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
  if (uevents.fd >= 0) return 0;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
  if (fd < 0) return -errno;
  int error = bind(fd, (struct sockaddr *)&address, sizeof address) ? -errno : source_add(&uevents, fd, EPOLLIN, uevent_ready);
  if (error) close(fd);
  return error;
}

/* Those of epochs that are over would otherwise stay until their time has passed. */
static void drop_abandoned(void) {
  for (struct list *at = waits.next, *next; at != &waits; at = next) {
    struct device_wait *wait = container_of(at, struct device_wait, link);
    next = at->next;
    if (!wait->wait.batch) finish(wait);
  }
}

enum op_state op_wait_device(struct op_context *context, const WaitDevice *op, OpResult *result) {
  drop_abandoned();
  struct device_wait *wait = xcalloc(1, sizeof *wait);
  uint32_t timeout_ms = op->timeout_ms ? op->timeout_ms : DEVICE_TIMEOUT_MS_DEFAULT;
  wait->by_lun = op->which_match == WaitDevice_scsi_lun_tag;
  if (wait->by_lun) {
    wait->lun = op->match.scsi_lun;
    snprintf(wait->what, sizeof wait->what, "the disk at LUN %u", wait->lun);
  } else if (op->which_match == WaitDevice_serial_tag) {
    strcpy(wait->serial, op->match.serial);
    snprintf(wait->what, sizeof wait->what, "the disk with serial %s", wait->serial);
  }
  int error = op->which_match ? listen_for_uevents() : -EINVAL;
  if (error) {
    free(wait);
    return op_fail(context, result, error, "wait for a device");
  }
  timer_init(&wait->timer, timed_out);
  list_add(&waits, &wait->link);
  op_pending(context, &wait->wait);
  timer_set(&wait->timer, timeout_ms * UINT64_C(1000000));
  check(wait);
  return OP_PENDING;
}
