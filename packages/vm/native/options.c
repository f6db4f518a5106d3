#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guardian.h"

static bool parse_number(const char *text, int64_t min, int64_t max, int64_t *out) {
  char *end = NULL;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < min || value > max) return false;
  *out = value;
  return true;
}

// Splits TEXT at its last '=' into a name and a descriptor.
static bool parse_pair(char *text, const char **name, int *fd) {
  char *equals = strrchr(text, '=');
  int64_t value = 0;
  if (equals == NULL || equals == text || !parse_number(equals + 1, 0, 255, &value)) return false;
  *equals = '\0';
  *name = text;
  *fd = (int)value;
  return true;
}

static bool flat_name(const char *name) {
  return strlen(name) <= NAME_BYTES_MAX && strchr(name, '/') == NULL && name[0] != '.';
}

static bool parse_one(struct options *o, const char *key, char *value) {
  int64_t number = 0;
  if (strcmp(key, "--dir") == 0) {
    o->dir = value;
    return value[0] == '/';
  }
  if (strcmp(key, "--owner-fd") == 0) {
    if (!parse_number(value, 3, 255, &number)) return false;
    o->owner_fd = (int)number;
    return true;
  }
  if (strcmp(key, "--keep-fd-max") == 0) {
    if (!parse_number(value, 3, 255, &number)) return false;
    o->keep_fd_max = (int)number;
    return true;
  }
  if (strcmp(key, "--orphan-ms") == 0) {
    o->adoptable = true;
    return parse_number(value, -1, INT64_MAX / 1000000, &o->orphan_ms);
  }
  if (strcmp(key, "--uid") == 0) {
    if (!parse_number(value, 1, 0xfffffffe, &number)) return false;
    o->change_user = true;
    o->uid = (uid_t)number;
    return true;
  }
  if (strcmp(key, "--private-ram-fd") == 0) {
    if (!parse_number(value, 3, 255, &number)) return false;
    o->ram_fd = (int)number;
    return true;
  }
  if (strcmp(key, "--listen") == 0) {
    if (o->listeners_len == LISTENERS_MAX) return false;
    struct listener *l = &o->listeners[o->listeners_len++];
    l->fd = -1;
    return parse_pair(value, &l->name, &l->vmm_fd) && flat_name(l->name);
  }
  if (strcmp(key, "--log") == 0) {
    if (o->logs_len == LOGS_MAX) return false;
    struct log *l = &o->logs[o->logs_len++];
    l->read_fd = l->write_fd = l->file_fd = -1;
    return parse_pair(value, &l->name, &l->vmm_fd) && flat_name(l->name);
  }
  if (strcmp(key, "--cgroup") == 0) {
    if (o->cgroups_len == CGROUPS_MAX || value[0] != '/') return false;
    o->cgroups[o->cgroups_len++] = value;
    return true;
  }
  if (strcmp(key, "--cgroup-set") == 0) {
    if (o->cgroup_settings_len == CGROUP_SETTINGS_MAX || strchr(value, '=') == NULL) return false;
    o->cgroup_settings[o->cgroup_settings_len++] = value;
    return value[0] == '/';
  }
  if (strcmp(key, "--inject") == 0) {
    if (o->injections_len == INJECTIONS_MAX) return false;
    struct injection *i = &o->injections[o->injections_len++];
    return parse_pair(value, &i->path, &i->fd);
  }
  return false;
}

bool options_parse(struct options *o, int argc, char **argv, char *error, size_t error_len) {
  memset(o, 0, sizeof *o);
  o->owner_fd = -1;
  o->keep_fd_max = -1;
  o->ram_fd = -1;
  int i = 1;
  for (; i < argc && strcmp(argv[i], "--") != 0; i += 2) {
    if (i + 1 >= argc || !parse_one(o, argv[i], argv[i + 1])) {
      snprintf(error, error_len, "option %s is unknown or its value is wrong", argv[i]);
      return false;
    }
  }
  if (i + 1 >= argc) {
    snprintf(error, error_len, "there is no command after --");
    return false;
  }
  o->vmm_argv = &argv[i + 1];
  if (o->dir == NULL || o->owner_fd < 0 || o->keep_fd_max < o->owner_fd) {
    snprintf(error, error_len, "--dir, --owner-fd and --keep-fd-max are needed");
    return false;
  }
  return true;
}
