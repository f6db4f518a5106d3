/* Stats: the machine's, and one cgroup's. A value that the kernel does not have is 0. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "limits.h"
#include "ops.h"

#define FILE_SIZE (16u << 10)

/* The number behind `key` at the beginning of a line. */
static uint64_t value_of(const char *text, const char *key) {
  size_t size = strlen(key);
  for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
    if (!strncmp(line, key, size)) return strtoull(line + size, NULL, 10);
  return 0;
}

/* The sum of all "key=number" of a text. */
static uint64_t sum_of(const char *text, const char *key) {
  uint64_t sum = 0;
  size_t size = strlen(key);
  for (const char *at = text; (at = strstr(at, key)); at += size)
    if (at == text || isspace((unsigned char)at[-1])) sum += strtoull(at + size, NULL, 10);
  return sum;
}

static uint32_t count_processes(void) {
  DIR *directory = opendir("/proc");
  struct dirent *entry;
  uint32_t count = 0;
  while (directory && (entry = readdir(directory)))
    if (isdigit((unsigned char)entry->d_name[0])) count++;
  if (directory) closedir(directory);
  return count;
}

static void machine(StatsResult *stats, char *text) {
  uint64_t ticks[8] = {0};
  uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
  if (read_file("/proc/meminfo", text, FILE_SIZE) > 0) {
    stats->memory_total = value_of(text, "MemTotal:") * 1024;
    stats->memory_available = value_of(text, "MemAvailable:") * 1024;
  }
  if (read_file("/proc/uptime", text, FILE_SIZE) > 0) stats->uptime_ns = (uint64_t)(strtod(text, NULL) * 1e9);
  if (read_file("/proc/stat", text, FILE_SIZE) > 0 && !strncmp(text, "cpu ", 4)) {
    char *at = text + 4; /* user nice system idle iowait irq softirq steal */
    for (size_t i = 0; i < ARRAY_SIZE(ticks); i++) ticks[i] = strtoull(at, &at, 10);
    stats->cpu_busy_ns = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) * tick_ns;
  }
  stats->processes = count_processes();
}

static bool read_cgroup(const char *cgroup, const char *file, char *text) {
  char path[PATH_SIZE_MAX];
  *text = 0;
  return !cgroup_file(cgroup, file, path) && read_file(path, text, FILE_SIZE) > 0;
}

static uint64_t number(const char *cgroup, const char *file, char *text) {
  return read_cgroup(cgroup, file, text) ? strtoull(text, NULL, 10) : 0; /* "max" is 0: none */
}

static void group(CgroupStats *stats, const char *cgroup, char *text) {
  stats->memory_current = number(cgroup, "memory.current", text);
  stats->memory_max = number(cgroup, "memory.max", text);
  stats->memory_peak = number(cgroup, "memory.peak", text);
  stats->pids_current = number(cgroup, "pids.current", text);
  if (read_cgroup(cgroup, "cpu.stat", text)) {
    stats->cpu_usage_us = value_of(text, "usage_usec ");
    stats->cpu_user_us = value_of(text, "user_usec ");
    stats->cpu_system_us = value_of(text, "system_usec ");
  }
  if (read_cgroup(cgroup, "memory.events", text)) stats->oom_kills = value_of(text, "oom_kill ");
  if (read_cgroup(cgroup, "io.stat", text)) {
    stats->io_read_bytes = sum_of(text, "rbytes=");
    stats->io_write_bytes = sum_of(text, "wbytes=");
  }
}

enum op_state op_stats(struct op_context *context, const Stats *op, OpResult *result) {
  const char *cgroup = msg_string(op->cgroup);
  char path[PATH_SIZE_MAX];
  int error = *cgroup ? cgroup_file(cgroup, "cgroup.procs", path) : 0;
  if (error) return op_fail(context, result, error, "stats of %.300s, which is not below /sys/fs/cgroup", cgroup);
  if (*cgroup && access(path, F_OK)) return op_fail(context, result, errno, "stats of %.300s", cgroup);
  char *text = xmalloc(FILE_SIZE);
  result->which_result = OpResult_stats_tag;
  machine(&result->result.stats, text);
  result->result.stats.has_cgroup = *cgroup != 0;
  if (*cgroup) group(&result->result.stats.cgroup, cgroup, text);
  free(text);
  return OP_DONE;
}
