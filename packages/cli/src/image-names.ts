/** How names of images are written for people. */

/** `busybox:latest` for `docker.io/library/busybox:latest`. */
export function familiar(name: string): string {
  return name.replace(/^docker\.io\/(?:library\/)?/, '');
}
