/** Commands about the daemon and the host. */
import { VERSION } from '@arcbox/api/client';
import type { Context } from '../context.ts';
import { printFormatted } from '../inspected.ts';
import { printList } from '../listing.ts';
import { print } from '../output.ts';
import { formatSize } from '../size.ts';
import type { ListingOptions } from '../table.ts';

const MARKS: Readonly<Record<string, string>> = {
  STATUS_OK: 'ok  ',
  STATUS_WARN: 'warn',
  STATUS_FAIL: 'FAIL',
};

export async function daemonStart(context: Context, options: { foreground?: boolean }): Promise<number> {
  if (options.foreground === true) {
    await import('../daemon-process.ts');
    return Number(process.exitCode ?? 0);
  }
  await context.daemon.start();
  const version = await context.daemon.call('SystemService/Version', {});
  print(`the daemon runs as process ${version.daemonPid} on ${context.layout.socket}`);
  return 0;
}

export async function daemonStop(context: Context): Promise<number> {
  print((await context.daemon.stop()) ? 'the daemon has stopped' : 'no daemon is running');
  return 0;
}

export async function daemonStatus(context: Context): Promise<number> {
  const version = await context.daemon.callIfUp('SystemService/Version', {});
  if (version === undefined) {
    print('stopped');
    // As systemctl: not running.
    return 3;
  }
  print(`running, process ${version.daemonPid}, version ${version.version}, ${context.layout.socket}`);
  return 0;
}

export async function doctor(context: Context, options: ListingOptions): Promise<number> {
  const { checks = [] } = await context.daemon.call('SystemService/Doctor', {});
  const code = checks.some((check) => check.status === 'STATUS_FAIL') ? 1 : 0;
  if (options.format !== undefined && options.format !== 'table') {
    printList(options, {
      rows: checks,
      id: ({ name = '' }) => name,
      columns: [],
      fields: {
        Name: ({ name = '' }) => name,
        Status: ({ status = '' }) => (MARKS[status] ?? '?').trim().toLowerCase(),
        Detail: ({ detail = '' }) => detail,
        NextStep: ({ nextStep = '' }) => nextStep,
      },
    });
    return code;
  }
  for (const check of checks) {
    print(`${MARKS[check.status ?? ''] ?? '?   '}  ${check.name}: ${check.detail}`);
    if (check.nextStep !== undefined && check.nextStep !== '') print(`      → ${check.nextStep}`);
  }
  return code;
}

/** Formats find what docker has: `{{.Client.Version}}`, `{{.Server.Version}}`; no server is null. */
export async function version(context: Context, options: { format?: string }): Promise<number> {
  const daemon = await context.daemon.callIfUp('SystemService/Version', {});
  const platform = { Os: 'linux', Arch: process.arch === 'x64' ? 'amd64' : process.arch };
  const shape = {
    Client: { Version: VERSION, NodeVersion: process.version, ...platform },
    Server:
      daemon === undefined
        ? null
        : {
            Version: daemon.version ?? '',
            NodeVersion: daemon.nodeVersion ?? '',
            ...platform,
            BootAssets: daemon.bootHash ?? '',
            Pid: daemon.daemonPid ?? 0,
          },
  };
  if (printFormatted(options.format, shape)) return 0;
  print(`arcbox ${VERSION} (Node.js ${process.version})`);
  if (daemon === undefined) print('daemon: not running');
  else print(`daemon: ${daemon.version}, boot assets ${daemon.bootHash} (${daemon.architecture})`);
  return 0;
}

/** Formats find docker's names, for what there is here. */
export async function info(context: Context, options: { format?: string }): Promise<number> {
  const answer = await context.daemon.call('SystemService/Info', {});
  const { containers = 0, containersRunning = 0, containersPaused = 0 } = answer;
  const shape = {
    Containers: containers,
    ContainersRunning: containersRunning,
    ContainersPaused: containersPaused,
    ContainersStopped: containers - containersRunning - containersPaused,
    Images: answer.images ?? 0,
    Machines: answer.machines ?? 0,
    Driver: 'overlay2',
    VmDriver: answer.driver ?? '',
    OSType: 'linux',
    Architecture: answer.architecture ?? '',
    NCPU: answer.machineCpus ?? 0,
    MemTotal: Number(answer.machineMemoryBytes ?? 0),
    DockerRootDir: answer.home ?? '',
    ServerVersion: answer.version ?? '',
    OrphanGraceSeconds: answer.orphanGraceS ?? null,
    UptimeSeconds: answer.uptimeS ?? 0,
  };
  if (printFormatted(options.format, shape)) return 0;
  print(`Data directory: ${answer.home}`);
  print(`Containers: ${containers} (${containersRunning} running)`);
  print(`Images: ${shape.Images}`);
  print(
    `Machines: ${shape.Machines}, by default of ${answer.machineCpus} CPUs and ${formatSize(shape.MemTotal)}, driver ${answer.driver}`,
  );
  print(
    answer.orphanGraceS === undefined
      ? 'Without a daemon: machines go on for ever'
      : `Without a daemon: machines go on for ${answer.orphanGraceS} s`,
  );
  return 0;
}
