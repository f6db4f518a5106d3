/** The `arcbox` command; its entry is `main.ts`. Nothing is exported: programs use `@arcbox/api/client`. */
export {};
