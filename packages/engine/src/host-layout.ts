/** The only module that knows where things lie under `ARCBOX_HOME`. */
import { createHash } from 'node:crypto';
import { chmod, mkdir, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { EngineError } from './errors.ts';
import { SOCKET_PATH_BYTES_MAX } from './limits.ts';

const OTHERS = 0o077;
const STICKY = 0o1000;
const TMPFS = '/dev/shm';

export class HostLayout {
  readonly home: string;

  /** `home` is made absolute. Throws `ERR_ARCBOX_CONFIG` when our sockets would not fit below it. */
  constructor(home: string) {
    this.home = resolve(home);
    const length = Buffer.byteLength(this.socket);
    if (length > SOCKET_PATH_BYTES_MAX) {
      throw new EngineError(
        'ERR_ARCBOX_CONFIG',
        `the path ${this.socket} has ${length} bytes, a Unix socket may have ${SOCKET_PATH_BYTES_MAX}; set ARCBOX_HOME to a shorter path`,
      );
    }
  }

  /** `ARCBOX_HOME`, or `~/.arcbox`. */
  static fromEnvironment(environment: NodeJS.ProcessEnv): HostLayout {
    return new HostLayout(environment.ARCBOX_HOME || join(homedir(), '.arcbox'));
  }

  /** Sockets, the lock, and the machines' run directories. */
  get run(): string {
    return join(this.home, 'run');
  }
  get socket(): string {
    return join(this.run, 'arcbox.sock');
  }
  get lock(): string {
    return join(this.run, 'daemon.lock');
  }
  get pidFile(): string {
    return join(this.run, 'daemon.pid');
  }
  get stateDatabase(): string {
    return join(this.home, 'state.db');
  }
  get eventsDatabase(): string {
    return join(this.home, 'events.db');
  }
  get configFile(): string {
    return join(this.home, 'config.toml');
  }
  get logs(): string {
    return join(this.home, 'log');
  }
  get daemonLog(): string {
    return join(this.logs, 'daemon.log');
  }
  machine(name: string): string {
    return join(this.home, 'machines', name);
  }
  machineDisk(name: string): string {
    return join(this.machine(name), 'disk.raw');
  }
  /** Where the memory of an idle machine is: on tmpfs, in a directory that only this data directory has. */
  machineMemory(name: string): string {
    const home = createHash('sha256').update(this.home).digest('hex').slice(0, 16);
    return join(TMPFS, `arcbox-${home}`, name);
  }
  /** Images: blobs and layers. */
  get content(): string {
    return join(this.home, 'content');
  }
  get volumes(): string {
    return join(this.home, 'volumes');
  }
  volume(name: string): string {
    return join(this.volumes, name);
  }
  volumeDisk(name: string): string {
    return join(this.volume(name), 'disk.raw');
  }
  get containers(): string {
    return join(this.home, 'containers');
  }
  container(id: string): string {
    return join(this.containers, id);
  }
  containerLog(id: string): string {
    return join(this.container(id), 'log');
  }

  /**
   * Makes the directories that everything else takes for granted. Nobody but the owner may look inside.
   *
   * Throws `ERR_ARCBOX_CONFIG` when the directory is another user's, or one that others use, too.
   */
  async prepare(): Promise<void> {
    await mkdir(this.home, { recursive: true, mode: 0o700 });
    await this.#claim();
    for (const directory of [this.run, this.logs, this.containers]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
  }

  /** Whoever owns the directory decides what our sockets are; and a shared one must not be shut to the others. */
  async #claim(): Promise<void> {
    const { uid, mode } = await stat(this.home);
    const refuse = (why: string): never => {
      throw new EngineError(
        'ERR_ARCBOX_CONFIG',
        `the data directory ${this.home} ${why}; set ARCBOX_HOME to a directory of your own`,
      );
    };
    if (uid !== process.getuid?.()) refuse(`belongs to user ${uid}`);
    if ((mode & OTHERS) === 0) return;
    if ((mode & STICKY) !== 0 || [homedir(), '/'].includes(this.home)) refuse('is used by others, too');
    await chmod(this.home, 0o700);
  }
}
