/** What a network's users want to see and to forbid: policies, counters, captures. */
import {
  captureFile,
  EngineError,
  type PolicyDefault,
  type PolicySubject,
  type Protocol,
  type Rule,
  type RulePolicy,
  type Runtime,
} from '@arcbox/engine';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import type {
  FlowTrafficSchema,
  NetworkPolicy,
  NetworkPolicySchema,
  NetworkRule,
  NetworkService,
  NetworkSubject,
  RouterTrafficSchema,
} from '../gen/arcbox/v1/network_pb.ts';

type Insight = Pick<ServiceImpl<typeof NetworkService>, 'getPolicy' | 'setPolicy' | 'stats' | 'capture'>;

export function networkInsight(runtime: Runtime): Insight {
  const { policies, plane, networks } = runtime;
  const subjectOf = async (message: NetworkSubject | undefined): Promise<PolicySubject> => {
    const subject = message?.subject;
    if (subject?.case === 'container') {
      return { kind: 'container', id: (await runtime.containers()).find(subject.value).record.id };
    }
    if (subject?.case === 'machine') return { kind: 'machine', id: runtime.machine(subject.value).name };
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      'whose policy or frames is missing: name a container or a machine',
    );
  };
  return {
    async getPolicy({ subject }) {
      const whose = await subjectOf(subject);
      const policy = policies.get(whose);
      return {
        ...(policy === undefined ? {} : { policy: toMessage(policy) }),
        function: policies.hasFunction(whose),
      };
    },
    async setPolicy({ subject, policy }) {
      await policies.set(
        plane,
        await subjectOf(subject),
        policy === undefined ? undefined : fromMessage(policy),
      );
      return {};
    },
    async stats({ flows: wantsFlows }) {
      const stats = await plane.stats();
      if (stats === undefined) return {};
      const flows = wantsFlows ? await plane.flows() : undefined;
      const containers = (await runtime.containers()).all();
      const nameOf = (id: string): string =>
        containers.find(({ record }) => record.id === id)?.record.name ?? id;
      const { dns, nat } = stats;
      return {
        ...(nat === undefined ? {} : { router: routerTraffic(nat) }),
        machines: stats.links.map(({ link, counters }) => ({ machine: link, ...bigints(counters) })),
        networks: stats.networks.map(({ network, ...counters }) => ({ network, ...bigints(counters) })),
        policies: stats.policies.map(({ kind, name, counters }) => ({
          kind: kind === 'owner' ? 'container' : 'machine',
          id: name,
          name: kind === 'owner' ? nameOf(name) : name,
          ...bigints(counters),
        })),
        names: bigints({
          queries: dns.queries,
          local: dns.local,
          cached: dns.cached,
          forwarded: dns.forwarded,
          refused: dns.refused,
          failed: dns.failed,
        }),
        flows: (flows?.flows ?? []).map((flow) => flowTraffic(flow, nameOf)),
        flowsOmitted: BigInt(flows?.omitted ?? 0),
      };
    },
    async *capture({ subject, snapBytes }, { signal }) {
      const { kind, id } = await subjectOf(subject);
      const containers = await runtime.containers();
      const machine = kind === 'machine' ? id : containers.find(id).record.machine;
      const pieces = captureFile(plane, {
        machine,
        // A container is known by its hardware addresses.
        ...(kind === 'machine' ? {} : { macs: networks.endpointsOf(id).map(({ mac }) => mac) }),
        ...(snapBytes === 0 ? {} : { snapBytes }),
        signal,
      });
      for await (const { data, dropped } of pieces) yield { data, dropped: BigInt(dropped) };
    },
  };
}

type OwnedFlow = NonNullable<Awaited<ReturnType<Runtime['plane']['flows']>>>['flows'][number];

function flowTraffic(
  flow: OwnedFlow,
  nameOf: (id: string) => string,
): MessageInitShape<typeof FlowTrafficSchema> {
  const { protocol, link, network, owner, begun, state, bytesFromMachine, bytesToMachine, ageMs } = flow;
  const machine = endText(flow.machineAddress, flow.machinePort);
  const peer = endText(flow.peerAddress, flow.peerPort);
  return {
    protocol,
    machine: link,
    network,
    ...(owner === undefined ? {} : { containerId: owner, containerName: nameOf(owner) }),
    source: begun === 'machine' ? machine : peer,
    destination: begun === 'machine' ? peer : machine,
    state,
    ...bigints({ sentBytes: bytesFromMachine, receivedBytes: bytesToMachine, ageMs }),
  };
}

/** Without a port: of ICMP. */
function endText(address: string, port: number): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

type Router = NonNullable<NonNullable<Awaited<ReturnType<Runtime['plane']['stats']>>>['nat']>;

function routerTraffic(nat: Router): MessageInitShape<typeof RouterTrafficSchema> {
  const { connections, created, forwardedOut, forwardedIn, denied, exhausted } = nat;
  const { unsolicited, untranslatable, malformed, dropped } = nat;
  return bigints({
    connections,
    created,
    forwardedOut,
    forwardedIn,
    denied,
    exhausted,
    unsolicited,
    untranslatable,
    malformed,
    dropped,
  });
}

/** Counters as the protocol has them. */
function bigints<Counters extends object>(counters: Counters): { [Key in keyof Counters]: bigint } {
  const entries = Object.entries(counters).map(([name, value]) => [name, BigInt(Number(value))]);
  return Object.fromEntries(entries) as { [Key in keyof Counters]: bigint };
}

/** Words are checked by the policy's own rules. */
function fromMessage({ default: otherwise, rules }: NetworkPolicy): RulePolicy {
  return { default: otherwise as PolicyDefault, rules: rules.map(fromRule) };
}

function fromRule({ action, to, domains, ports, protocol }: NetworkRule): Rule {
  return {
    action: action as Rule['action'],
    ...(to.length === 0 ? {} : { to }),
    ...(domains.length === 0 ? {} : { domains }),
    ...(ports.length === 0 ? {} : { ports }),
    ...(protocol === '' ? {} : { protocol: protocol as Protocol }),
  };
}

function toMessage(policy: RulePolicy): MessageInitShape<typeof NetworkPolicySchema> {
  return {
    default: policy.default,
    rules: (policy.rules ?? []).map(({ action, to = [], domains = [], ports = [], protocol = '' }) => ({
      action,
      to: [...to],
      domains: [...domains],
      ports: [...ports],
      protocol,
    })),
  };
}
