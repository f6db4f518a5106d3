/**
 * A guest in memory that containers can run in: files, mounts, and processes that are functions. It is what stands
 * behind the fake VM driver in the tests of the engine, the daemon and the command.
 */
import {
  type AgentHandlers,
  Archive_Mode,
  type Op,
  type OpAnswer,
  OpFailure,
  ServedObject,
} from '@arcbox/protocol';
import type { FakeGuest } from '@arcbox/vm';

const ENOENT = 2;
const ESRCH = 3;
const ECHILD = 10;
const EEXIST = 17;
const EINVAL = 22;
const ENOSYS = 38;
const ETIMEDOUT = 110;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const CRUN = '/bin/crun';

export interface FakeProcess {
  readonly argv: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly tty: boolean;
  /** Resolves when there is room for more. */
  out(text: string | Uint8Array): Promise<void>;
  err(text: string): Promise<void>;
  /** Called for input; the end is an empty piece with `eof`. */
  onInput: ((data: Uint8Array, eof: boolean) => void) | undefined;
  /** Called for signals; without it every signal ends the process. */
  onSignal: ((signal: number) => void) | undefined;
  onResize: ((rows: number, columns: number) => void) | undefined;
  exit(code: number): void;
}

export type Program = (process: FakeProcess) => void | Promise<void>;

const PASSWD = 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n';
const GROUP = 'root:x:0:\nwheel:x:10:root,web\nweb:x:34:\n';

/** Programs that every fake image has. */
const PROGRAMS: Readonly<Record<string, Program>> = {
  async echo({ argv, out, exit }) {
    await out(`${argv.slice(1).join(' ')}\n`);
    exit(0);
  },
  async both({ out, err, exit }) {
    await out('out\n');
    await err('err\n');
    exit(7);
  },
  cat(process) {
    process.onInput = (data, eof) => {
      void process.out(data);
      if (eof) process.exit(0);
    };
  },
  sleep() {},
  async count({ argv, out, exit }) {
    for (let n = 0; n < Number(argv[1]); n += 1) await out(`${n}\n`);
    exit(0);
  },
  async env({ env, out, exit }) {
    await out(`${env.join('\n')}\n`);
    exit(0);
  },
};

export class FakeContainerGuest {
  readonly files = new Map<string, Buffer>();
  readonly directories = new Set<string>(['/', '/proc', '/sys/fs/cgroup', '/run']);
  readonly mounts = new Map<string, string>();
  readonly objects = new Map<string, ServedObject>();
  /** Every operation that was run, by its name. */
  readonly ran: string[] = [];
  /** What its page cache has of files. */
  cachedKib = 0;
  /** Set to fail the next operation of that name. */
  failNext: { readonly op: string; readonly errno: number } | undefined;
  readonly #programs: Readonly<Record<string, Program>>;
  readonly #processes = new Map<string, FakeProcess>();
  #guest: FakeGuest | undefined;
  #lastPid = 100;

  constructor(programs: Readonly<Record<string, Program>> = {}) {
    this.#programs = { ...PROGRAMS, ...programs };
  }

  /** For `FakeDriverOptions.handlers`. A machine that boots anew has nothing of the one before; a restored one has it all. */
  handlers(guest: FakeGuest): AgentHandlers {
    if (this.#guest !== guest && guest.epoch > 0) {
      this.#guest = guest;
    } else if (this.#guest !== guest) {
      const disk = [...this.directories].filter((path) => path.startsWith('/m/'));
      this.#guest = guest;
      this.files.clear();
      this.mounts.clear();
      this.objects.clear();
      this.#processes.clear();
      this.directories.clear();
      for (const path of ['/', '/proc', '/sys/fs/cgroup', '/run', ...disk]) this.directories.add(path);
    }
    return {
      hello: () => ({
        protocolVersion: 1,
        epoch: BigInt(++guest.epoch),
        agentVersion: 'fake',
        kernelRelease: 'fake',
      }),
      op: (op) => this.#run(op, guest),
      object: (id) => this.objects.get(id),
    };
  }

  /** What a container may leave behind: everything below the places that belong to containers. */
  leftovers(): string[] {
    const places = ['/run/c/', '/m/c/', '/run/crun/', '/sys/fs/cgroup/arcbox/'];
    const paths = [...this.directories, ...this.files.keys(), ...this.mounts.keys()];
    return [
      ...paths.filter(
        (path) => places.some((place) => path.startsWith(place)) && !path.endsWith('.subtree_control'),
      ),
      ...[...this.objects.keys()].map((id) => `object ${id}`),
    ].sort();
  }

  async #run(op: Op['op'], guest: FakeGuest): Promise<OpAnswer> {
    this.ran.push(op.case ?? '');
    if (this.failNext !== undefined && this.failNext.op === op.case) {
      const { errno } = this.failNext;
      this.failNext = undefined;
      throw new OpFailure(errno, 'as the test wanted');
    }
    switch (op.case) {
      case 'mkdir':
        if (!op.value.parents && this.directories.has(op.value.path))
          throw new OpFailure(EEXIST, op.value.path);
        this.directories.add(op.value.path);
        return undefined;
      case 'mount': {
        const { target, type, source } = op.value;
        this.directories.add(target);
        this.mounts.set(target, `${source} ${target} ${type} rw 0 0`);
        if (type === 'overlay') {
          this.files.set(`${target}/etc/passwd`, Buffer.from(PASSWD));
          this.files.set(`${target}/etc/group`, Buffer.from(GROUP));
          this.directories.add(`${target}/etc`);
        }
        return undefined;
      }
      case 'unmount': {
        const { target } = op.value;
        if (!this.mounts.delete(target)) throw new OpFailure(EINVAL, `${target} is no mount point`);
        this.#removeTree(target);
        this.directories.add(target);
        return undefined;
      }
      case 'write':
        this.files.set(op.value.path, Buffer.from(op.value.data));
        if (op.value.path.endsWith('/cgroup.freeze')) {
          const events = op.value.path.replace(/freeze$/, 'events');
          this.files.set(
            events,
            Buffer.from(`populated 1\nfrozen ${Buffer.from(op.value.data).toString()}\n`),
          );
        }
        return undefined;
      case 'read': {
        const path = `${op.value.root}${op.value.path}`;
        const data = this.#procFile(path) ?? this.files.get(path);
        if (data === undefined) throw new OpFailure(ENOENT, `${path} does not exist`);
        return { case: 'data', value: { data, eof: true } };
      }
      case 'stat': {
        const path = `${op.value.root}${op.value.path}`;
        const isFile = this.files.has(path);
        if (!isFile && !this.directories.has(path)) throw new OpFailure(ENOENT, `${path} does not exist`);
        return { case: 'stat', value: { mode: isFile ? S_IFREG | 0o644 : S_IFDIR | 0o755 } };
      }
      case 'list': {
        const prefix = `${op.value.path}/`;
        const names = new Set(
          [...this.directories, ...this.files.keys()]
            .filter((path) => path.startsWith(prefix))
            .map((path) => path.slice(prefix.length).split('/')[0] ?? ''),
        );
        return { case: 'list', value: { entries: [...names].map((name) => ({ name, type: 4 })) } };
      }
      case 'remove':
        if (!this.#removeTree(op.value.path) && !op.value.missingOk)
          throw new OpFailure(ENOENT, op.value.path);
        return undefined;
      case 'waitDevice': {
        const { match } = op.value;
        if (match.case === 'serial') return { case: 'device', value: { path: '/dev/vda' } };
        const disk = guest.disks.find(({ lun }) => lun === match.value);
        if (disk === undefined) throw new OpFailure(ETIMEDOUT, 'the device did not appear');
        return { case: 'device', value: { path: `/dev/sd${disk.lun}` } };
      }
      case 'archive': {
        // No image of the fake has a directory to be copied.
        const object = new ServedObject({ id: op.value.id, pid: 0, input: () => {} });
        this.objects.set(op.value.id, object);
        if (op.value.mode === Archive_Mode.PACK) object.finish({ signaled: false, code: ENOENT });
        return undefined;
      }
      case 'spawn':
        return { case: 'process', value: { pid: this.#spawn(op.value) } };
      case 'execIn':
        return { case: 'process', value: { pid: this.#execIn(op.value) } };
      case 'signal': {
        const process = this.#processes.get(op.value.id);
        if (process === undefined || this.objects.get(op.value.id)?.ended === true)
          throw new OpFailure(ESRCH, 'no such process');
        if (process.onSignal !== undefined && op.value.signal !== 9) process.onSignal(op.value.signal);
        else this.objects.get(op.value.id)?.finish({ signaled: true, code: op.value.signal });
        return undefined;
      }
      case 'resize':
        this.#processes.get(op.value.id)?.onResize?.(op.value.size?.rows ?? 0, op.value.size?.columns ?? 0);
        return undefined;
      case 'release': {
        const object = this.objects.get(op.value.id);
        if (object === undefined && !op.value.missingOk) throw new OpFailure(ENOENT, op.value.id);
        object?.finish({ signaled: true, code: 9 });
        object?.detach?.();
        this.objects.delete(op.value.id);
        return undefined;
      }
      case 'listObjects':
        return {
          case: 'objects',
          value: { objects: [...this.objects.values()].map((object) => object.info()) },
        };
      case 'shutdown':
        guest.onShutdown?.();
        return undefined;
      case 'netNamespace':
        if (this.mounts.has(op.value.path)) throw new OpFailure(EEXIST, op.value.path);
        this.mounts.set(op.value.path, `nsfs ${op.value.path} nsfs rw 0 0`);
        this.files.set(op.value.path, Buffer.alloc(0));
        return undefined;
      case 'netlink':
        return { case: 'data', value: { data: netlinkAnswer(Buffer.from(op.value.request)), eof: true } };
      case 'setTime':
      case 'reseed':
      case 'sync':
        return undefined;
      default:
        throw new OpFailure(ENOSYS, `the fake guest does not know ${op.case}`);
    }
  }

  #spawn(spawn: Extract<Op['op'], { case: 'spawn' }>['value']): number {
    if (spawn.argv[0] !== CRUN) throw new OpFailure(ENOENT, `${spawn.argv[0]} does not exist`);
    const argument = (name: string): string =>
      spawn.argv.find((text) => text.startsWith(`--${name}=`))?.slice(name.length + 3) ?? '';
    const spec = JSON.parse(
      this.files.get(`${argument('bundle')}/config.json`)?.toString('utf8') ?? '{}',
    ) as {
      process: { args: string[]; env: string[]; cwd: string; terminal: boolean };
      linux: { cgroupsPath: string };
    };
    const { args, env, cwd, terminal } = spec.process;
    const program = this.#programs[args[0] ?? ''];
    if (program === undefined) {
      const msg = `executable file \`${args[0]}\` not found in $PATH: No such file or directory`;
      this.files.set(argument('log'), Buffer.from(`${JSON.stringify({ msg, level: 'error' })}\n`));
      throw new OpFailure(ECHILD, 'crun exited with 1');
    }
    this.directories.add(`/run/crun/${spawn.argv.at(-1)}`);
    this.directories.add(`/sys/fs/cgroup${spec.linux.cgroupsPath}`);
    return this.#begin(program, spawn, { args, env, cwd, terminal });
  }

  #execIn({ spawn, target }: Extract<Op['op'], { case: 'execIn' }>['value']): number {
    const other = this.objects.get(target);
    if (other === undefined || other.ended) throw new OpFailure(ESRCH, `no process ${target} runs`);
    if (spawn === undefined) throw new OpFailure(EINVAL, 'nothing to start');
    const program = this.#programs[spawn.argv[0] ?? ''];
    if (program === undefined) throw new OpFailure(ENOENT, `exec ${spawn.argv[0]}`);
    const { argv, env, cwd, tty } = spawn;
    return this.#begin(program, spawn, { args: argv, env, cwd, terminal: tty });
  }

  #begin(
    program: Program,
    spawn: Extract<Op['op'], { case: 'spawn' }>['value'],
    { args, env, cwd, terminal }: { args: string[]; env: string[]; cwd: string; terminal: boolean },
  ): number {
    const pid = ++this.#lastPid;
    const object = new ServedObject({
      id: spawn.id,
      pid,
      ...(spawn.stdin || spawn.tty ? { input: (data, eof) => process.onInput?.(data, eof) } : {}),
    });
    const process: FakeProcess = {
      argv: args,
      env,
      cwd,
      tty: terminal,
      out: (text) => object.output.write(Buffer.from(text)),
      err: (text) => object.error.write(Buffer.from(text)),
      onInput: undefined,
      onSignal: undefined,
      onResize: undefined,
      exit: (code) => object.finish({ signaled: false, code }),
    };
    this.objects.set(spawn.id, object);
    this.#processes.set(spawn.id, process);
    void program(process);
    return pid;
  }

  #procFile(path: string): Buffer | undefined {
    if (path === '/proc/self/mounts') return Buffer.from([...this.mounts.values()].join('\n'));
    if (path === '/proc/meminfo')
      return Buffer.from(`Active(file):      0 kB\nInactive(file):    ${this.cachedKib} kB\n`);
    return undefined;
  }

  #removeTree(path: string): boolean {
    let found = false;
    for (const set of [this.directories, this.files]) {
      for (const key of [...set.keys()]) {
        if (key === path || key.startsWith(`${path}/`)) found = set.delete(key) || found;
      }
    }
    return found;
  }
}

/** Every message is done; whoever asks for a link hears that it is number 2. */
function netlinkAnswer(request: Buffer): Buffer {
  const answers: Buffer[] = [];
  for (let at = 0; at < request.length; at += request.readUInt32LE(at)) {
    const message = request.subarray(at, at + request.readUInt32LE(at));
    if (message.readUInt16LE(4) === 18) {
      const link = Buffer.from(message);
      link.writeUInt16LE(16, 4);
      link.writeInt32LE(2, 20);
      answers.push(link);
    }
    const done = Buffer.alloc(36);
    done.writeUInt32LE(36, 0);
    done.writeUInt16LE(2, 4);
    message.copy(done, 8, 8, 12);
    answers.push(done);
  }
  return Buffer.concat(answers);
}
