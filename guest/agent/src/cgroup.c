/* Paths of cgroups that the host names. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"

#define ROOT "/sys/fs/cgroup"

int cgroup_file(const char *cgroup, const char *file, char path[PATH_SIZE_MAX]) {
  size_t root = sizeof ROOT - 1;
  if (strncmp(cgroup, ROOT, root) || (cgroup[root] && cgroup[root] != '/')) return EINVAL;
  if (path_has_dotdot(cgroup)) return EINVAL;
  return snprintf(path, PATH_SIZE_MAX, "%s/%s", cgroup, file) >= (int)PATH_SIZE_MAX ? ENAMETOOLONG : 0;
}
