type Equal<A, B> = (<X>() => X extends A ? 1 : 2) extends <X>() => X extends B ? 1 : 2 ? true : false

/**
 * `same<Expected>()(value)` compiles only if the type of `value` is exactly `Expected`; `any` is
 * the same as itself alone.
 */
export function same<Expected>() {
    return <Actual>(_value: Actual, ..._isSame: Equal<Actual, Expected> extends true ? [] : [never]): void => {}
}
