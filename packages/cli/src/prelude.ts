/** What has to happen before anything else is imported, for a quick start and a small daemon. */
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';

/**
 * Node.js keeps what it compiled, types already stripped, in a folder that is ours alone: not in the shared /tmp. The
 * launcher says the same in the environment, which works for this file, too.
 */
process.env.NODE_COMPILE_CACHE ||= join(
  process.env.XDG_CACHE_HOME || join(homedir(), '.cache'),
  'arcbox',
  'node',
);
enableCompileCache(process.env.NODE_COMPILE_CACHE);

/**
 * The first `import` of `node:http` reads every property of it, and three of them are getters that load a whole HTTP
 * client of another kind: 40 ms and 14 MB that we have no use for.
 */
const http = process.getBuiltinModule('node:http');
for (const name of ['WebSocket', 'CloseEvent', 'MessageEvent']) Reflect.deleteProperty(http, name);

/** The same with `node:process`, which commander imports: one getter builds a set of all of Node's options. */
Reflect.deleteProperty(process, 'allowedNodeEnvironmentFlags');
