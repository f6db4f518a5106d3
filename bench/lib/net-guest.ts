/**
 * One guest with three network cards, each on another network stack of the host: ours, QEMU's slirp and passt. It runs
 * what the benchmark types into its console, so that all three are measured in the same guest, in turns.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { NetworkWorker } from '@arcbox/net/worker';
import { buildNetProbe } from './net-probe.ts';

export const PEERS = ['ours', 'slirp', 'passt'] as const;
export type Peer = (typeof PEERS)[number];

/** Where each of them shows the host's loopback. */
export const GATEWAYS: Record<Peer, string> = { ours: '10.9.0.1', slirp: '10.10.0.2', passt: '10.11.0.1' };
const ADDRESSES: Record<Peer, string> = { ours: '10.9.0.2', slirp: '10.10.0.15', passt: '10.11.0.2' };
const MEMORY_MIB = 512;
const START_LIMIT_MS = 60_000;
const COMMAND_LIMIT_MS = 120_000;
const PROMPT = 'arcbox-bench-done';

export class NetGuest implements AsyncDisposable {
  readonly #directory: string;
  readonly #qemu: ChildProcess;
  readonly #passt: ChildProcess;
  readonly #worker: NetworkWorker;
  #output = '';
  #wake: () => void = () => {};

  private constructor(directory: string, qemu: ChildProcess, passt: ChildProcess, worker: NetworkWorker) {
    this.#directory = directory;
    this.#qemu = qemu;
    this.#passt = passt;
    this.#worker = worker;
    qemu.stdout?.on('data', (data) => {
      this.#output += String(data);
      this.#wake();
    });
  }

  /** `mtu` of each peer's card: its best. */
  static async start(boot: string, mtu: Record<Peer, number>): Promise<NetGuest> {
    const directory = mkdtempSync(path.join(os.tmpdir(), 'arcbox-bench-net-'));
    // passt becomes nobody, and makes its socket then.
    chmodSync(directory, 0o777);
    const initramfs = buildInitramfs(directory, boot, mtu);
    const passtSocket = path.join(directory, 'passt.sock');
    const oursSocket = path.join(directory, 'ours.sock');
    const passt = spawn(
      'passt',
      [
        ...['--foreground', '--quiet', '--socket', passtSocket, '--ipv4-only', '--mtu', String(mtu.passt)],
        ...['--address', ADDRESSES.passt, '--netmask', '24', '--gateway', GATEWAYS.passt],
        ...['--mac-addr', '52:55:0a:0b:00:01'],
      ],
      { stdio: 'ignore' },
    );
    await orKill(fileAppears(passtSocket), passt);
    const card = (peer: Peer, index: number): string[] => [
      '-device',
      `virtio-net-device,netdev=${peer},mac=52:54:00:00:00:0${index + 1},host_mtu=${mtu[peer]}`,
    ];
    const qemu = spawn(
      'qemu-system-x86_64',
      [
        ...['-M', 'microvm,x-option-roms=off,rtc=on,acpi=off', '-accel', 'tcg', '-cpu', 'max,-svm'],
        ...['-m', String(MEMORY_MIB), '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
        ...['-global', 'virtio-mmio.force-legacy=off', '-serial', 'stdio'],
        ...['-kernel', path.join(boot, 'vmlinux'), '-initrd', initramfs],
        ...['-append', `console=ttyS0 reboot=t panic=-1 quiet ${clockArguments(boot)}`],
        ...['-netdev', `stream,id=ours,server=on,addr.type=unix,addr.path=${oursSocket}`],
        ...['-netdev', 'user,id=slirp,net=10.10.0.0/24,host=10.10.0.2,dhcpstart=10.10.0.15'],
        ...['-netdev', `stream,id=passt,server=off,addr.type=unix,addr.path=${passtSocket}`],
        ...PEERS.flatMap(card),
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    await orKill(fileAppears(oursSocket), passt, qemu);
    const worker = await NetworkWorker.start();
    await worker.addNetwork({
      name: 'bench',
      mtu: mtu.ours,
      subnet: '10.9.0.0/24',
      gateway: GATEWAYS.ours,
      internal: false,
      asks: false,
    });
    await worker.plug('guest', oursSocket);
    await worker.attach('guest', 0, 'bench');
    const guest = new NetGuest(directory, qemu, passt, worker);
    await orKill(guest.#until(START_LIMIT_MS), passt, qemu);
    return guest;
  }

  /** Runs a line of shell and answers with what it printed. */
  async run(line: string): Promise<string> {
    this.#output = '';
    this.#qemu.stdin?.write(`${line}; echo ${PROMPT.slice(0, 6)}${PROMPT.slice(6)}\n`);
    const output = await this.#until(COMMAND_LIMIT_MS);
    return output.replaceAll('\r', '');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of [this.#qemu, this.#passt]) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    }
    await this.#worker[Symbol.asyncDispose]();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #until(limitMs: number): Promise<string> {
    const end = performance.now() + limitMs;
    for (;;) {
      const at = this.#output.indexOf(`${PROMPT}\r\n`);
      if (at >= 0) {
        const output = this.#output.slice(0, at);
        this.#output = '';
        return output;
      }
      const left = end - performance.now();
      if (left <= 0) throw new Error(`the guest did not answer; it printed: ${this.#output.slice(-500)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

/** Waits, and leaves nothing running when that fails. */
async function orKill<T>(waiting: Promise<T>, ...children: readonly ChildProcess[]): Promise<T> {
  try {
    return await waiting;
  } catch (error) {
    for (const child of children) child.kill('SIGKILL');
    throw error;
  }
}

async function fileAppears(file: string): Promise<void> {
  for (let waitMs = 1; !existsSync(file); waitMs *= 2) {
    if (waitMs > 8000) throw new Error(`${file} did not appear`);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/** Without them a guest under emulation counts time in jiffies, some lost, and measures nothing. */
function clockArguments(boot: string): string {
  const probe = spawnSync(path.join(boot, 'kvm-probe'), { encoding: 'utf8' });
  const khz = /"tsc_khz":\s*(\d+)/.exec(probe.stdout)?.[1];
  return khz === undefined || khz === '0' ? '' : `tsc_early_khz=${khz} tsc=reliable`;
}

/** Our guest's files, with iperf3 and an init of the benchmark's laid over them. */
function buildInitramfs(directory: string, boot: string, mtu: Record<Peer, number>): string {
  const root = path.join(directory, 'root');
  mkdirSync(root);
  const copy = (file: string): void => {
    const target = path.join(root, file);
    mkdirSync(path.dirname(target), { recursive: true });
    copyFileSync(file, target);
  };
  const iperf = '/usr/bin/iperf3';
  copy(iperf);
  for (const match of execFileSync('ldd', [iperf], { encoding: 'utf8' }).matchAll(/(\/\S+) \(/g)) {
    if (match[1] !== undefined) copy(match[1]);
  }
  buildNetProbe(path.join(root, 'net-probe'));
  const cards = PEERS.map(
    (peer, index) =>
      `$B ip link set eth${index} mtu ${mtu[peer]} up; $B ip addr add ${ADDRESSES[peer]}/24 dev eth${index}`,
  );
  writeFileSync(
    path.join(root, 'init'),
    [
      '#!/bin/busybox sh',
      'B=/bin/busybox',
      '$B mkdir -p /proc /sys /dev /tmp; $B mount -t proc p /proc; $B mount -t sysfs s /sys',
      '$B mount -t devtmpfs d /dev; $B mount -t tmpfs t /tmp',
      '$B stty -echo',
      '$B ip link set lo up',
      ...cards,
      `echo ${PROMPT}`,
      'exec $B sh 2>&1',
      '',
    ].join('\n'),
    { mode: 0o755 },
  );
  const overlay = path.join(directory, 'overlay.cpio');
  execFileSync('sh', ['-c', 'find . | cpio --quiet --create --format=newc > ../overlay.cpio'], { cwd: root });
  const file = path.join(directory, 'initramfs');
  const base = readFileSync(path.join(boot, 'initramfs'));
  writeFileSync(
    file,
    Buffer.concat([base, Buffer.alloc((512 - (base.length % 512)) % 512), readFileSync(overlay)]),
  );
  return file;
}
