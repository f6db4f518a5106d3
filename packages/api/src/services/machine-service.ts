import type { Machine, Runtime } from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import type { MachineSchema, MachineService } from '../gen/arcbox/v1/machine_pb.ts';

export function machineService(runtime: Runtime): ServiceImpl<typeof MachineService> {
  return {
    async list() {
      const machines = await runtime.machines();
      return { machines: await Promise.all(machines.map((machine) => toMessage(runtime, machine))) };
    },
    async inspect({ name }) {
      return { machine: await toMessage(runtime, runtime.machine(name)) };
    },
    async start({ name }) {
      const machine = runtime.machine(name);
      // A daemon that ends brings nothing up any more.
      await runtime.containers();
      await machine.ensure();
      return { machine: await toMessage(runtime, machine) };
    },
    async idle({ name }) {
      await runtime.idleMachine(name);
      return { machine: await toMessage(runtime, runtime.machine(name)) };
    },
    async stop({ name }) {
      await runtime.stopMachine(name);
      return {};
    },
  };
}

async function toMessage(
  runtime: Runtime,
  machine: Machine,
): Promise<MessageInitShape<typeof MachineSchema>> {
  const base = {
    name: machine.name,
    state: machine.state,
    cpus: runtime.config.machine.cpus,
    memoryBytes: BigInt(runtime.config.machine.memoryMib) * 1024n ** 2n,
    ...(machine.saved === undefined
      ? {}
      : { savedBytes: BigInt(machine.saved.memoryBytes), savedMs: BigInt(machine.saved.savedMs) }),
  };
  const up = machine.state === 'running' ? await machine.current() : undefined;
  if (up === undefined) return base;
  const [inspect, client] = await Promise.all([up.vm.inspect(), up.agent.client()]);
  return {
    ...base,
    cpus: up.vm.config.vcpus,
    memoryBytes: BigInt(up.vm.config.memoryMib) * 1024n ** 2n,
    pid: inspect.pid,
    accelerator: inspect.accelerator,
    vmmVersion: inspect.vmmVersion,
    kernelRelease: client.hello.kernelRelease,
    agentVersion: client.hello.agentVersion,
    pssBytes: BigInt(inspect.pssBytes),
    guestRamPssBytes: BigInt(inspect.guestRamPssBytes),
  };
}
