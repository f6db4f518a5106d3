/** A service and what answers its methods, for both ways in which it is served. */
import type { DescMessage, DescService, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';

export interface Registration {
  readonly service: DescService;
  readonly implementation: object;
}

export function registration<Service extends DescService>(
  service: Service,
  implementation: ServiceImpl<Service>,
): Registration {
  return { service, implementation };
}

/** A method that takes one message and answers with one. */
export interface UnaryMethod {
  readonly input: DescMessage;
  readonly output: DescMessage;
  call(request: MessageShape<DescMessage>): Promise<MessageInitShape<DescMessage>>;
}

/** A method that takes one message and answers with a stream of them. */
export interface StreamMethod {
  readonly input: DescMessage;
  readonly output: DescMessage;
  /** The signal is aborted when the client has left. */
  call(
    request: MessageShape<DescMessage>,
    context: { readonly signal: AbortSignal },
  ): AsyncIterable<MessageInitShape<DescMessage>>;
}

/** Every method that answers with a stream, by its path. */
export function streamMethods(registrations: readonly Registration[]): Map<string, StreamMethod> {
  const methods = new Map<string, StreamMethod>();
  for (const { service, implementation } of registrations) {
    for (const { methodKind, name, localName, input, output } of service.methods) {
      if (methodKind !== 'server_streaming') continue;
      // `registration` has checked that it is there and what it takes.
      const call = Reflect.get(implementation, localName) as StreamMethod['call'];
      methods.set(`/${service.typeName}/${name}`, { input, output, call: call.bind(implementation) });
    }
  }
  return methods;
}

/** Every unary method, by its path: `/arcbox.v1.ContainerService/Create`. */
export function unaryMethods(registrations: readonly Registration[]): Map<string, UnaryMethod> {
  const methods = new Map<string, UnaryMethod>();
  for (const { service, implementation } of registrations) {
    for (const { methodKind, name, localName, input, output } of service.methods) {
      if (methodKind !== 'unary') continue;
      // `registration` has checked that it is there and what it takes.
      const answer = Reflect.get(implementation, localName) as (
        request: unknown,
      ) => MessageInitShape<DescMessage>;
      methods.set(`/${service.typeName}/${name}`, {
        input,
        output,
        call: async (request) => answer.call(implementation, request),
      });
    }
  }
  return methods;
}
