/* SetTime, Reseed, Sync, Shutdown. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#include "limits.h"
#include "loop.h"
#include "ops.h"

enum op_state op_set_time(struct op_context *context, const SetTime *op, OpResult *result) {
  struct timespec time = {.tv_sec = op->unix_ns / 1000000000, .tv_nsec = op->unix_ns % 1000000000};
  if (time.tv_nsec < 0) {
    time.tv_nsec += 1000000000;
    time.tv_sec--;
  }
  if (clock_settime(CLOCK_REALTIME, &time)) return op_fail(context, result, errno, "set the clock");
  return OP_DONE;
}

enum op_state op_reseed(struct op_context *context, const Reseed *op, OpResult *result) {
  struct {
    struct rand_pool_info info;
    uint8_t bytes[ENTROPY_MAX];
  } pool;
  if (!op->entropy.size || op->entropy.size > ENTROPY_MAX)
    return op_fail(context, result, EINVAL, "reseed with %zu bytes, not 1 to 512", op->entropy.size);
  pool.info.entropy_count = (int)op->entropy.size * 8;
  pool.info.buf_size = (int)op->entropy.size;
  memcpy(pool.info.buf, op->entropy.data, op->entropy.size);
  int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
  int failed = fd < 0 || ioctl(fd, RNDADDENTROPY, &pool);
  /* A clone must not go on with the generator state that its siblings have. */
  if (!failed) failed = ioctl(fd, RNDRESEEDCRNG);
  int error = failed ? errno : 0;
  if (fd >= 0) close(fd);
  explicit_bzero(&pool, sizeof pool);
  return error ? op_fail(context, result, error, "reseed") : OP_DONE;
}

void sync_all(struct op_context *context, const Op *op, OpResult *result) {
  (void)context, (void)op, (void)result;
  sync();
}

/* --- Shutdown: answered first, done when the answer is on its way --------------------------- */

static bool restart;

static void shut_down(struct timer *timer) {
  (void)timer;
  if (!agent_is_init) {
    loop_stop();
    return;
  }
  /* sync() can take its time: nothing else is to be done here any more. */
  sync();
  if (restart) reboot(RB_AUTOBOOT);
  power_off();
  fatal("reboot: %s", strerror(errno));
}

static struct timer shutdown_timer = {.link = LIST_INIT(shutdown_timer.link)};

enum op_state op_shutdown(struct op_context *context, const Shutdown *op, OpResult *result) {
  (void)context, (void)result;
  restart = op->reboot;
  shutdown_timer.run = shut_down;
  timer_set(&shutdown_timer, 10 * 1000000u); /* the answer leaves in this turn of the loop */
  return OP_DONE;
}
