/** The protocol of credential helpers: a program `docker-credential-NAME VERB`, its input and output JSON or one line. */
import { execFile } from 'node:child_process';
import { ImageError, messageOf } from '../errors.ts';
import { ANSWER_BYTES_MAX, HELPER_TIMEOUT_MS } from '../limits.ts';

/** What it wrote; undefined when it knows nothing of the host `key`. Throws `ERR_ARCBOX_CREDENTIALS`. */
export async function callHelper(
  name: string,
  verb: 'get' | 'store' | 'erase',
  key: string,
  input: string,
  environment: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  if (!/^[A-Za-z0-9._-]+$/.test(name)) {
    throw new ImageError(
      'ERR_ARCBOX_CREDENTIALS',
      `${JSON.stringify(name)} is no name of a credential helper`,
    );
  }
  const program = `docker-credential-${name}`;
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
  const child = execFile(
    program,
    [verb],
    { env: environment, timeout: HELPER_TIMEOUT_MS, maxBuffer: ANSWER_BYTES_MAX },
    (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
        return;
      }
      const said = `${stdout}${stderr}`.trim();
      if (/credentials not found/i.test(said)) resolve(undefined);
      else {
        const why = said === '' ? messageOf(error) : said;
        reject(
          new ImageError('ERR_ARCBOX_CREDENTIALS', `${program} failed for ${key}: ${why}`, { cause: error }),
        );
      }
    },
  );
  // A helper may end without reading.
  child.stdin?.on('error', () => {});
  child.stdin?.end(`${input}\n`);
  return promise;
}
