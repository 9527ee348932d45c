import { TEXTS, type Lang, type Texts } from "../i18n";

/** A language with its texts: what every piece of the page needs to speak. */
export interface Words {
  lang: Lang;
  t: Texts;
}

export const WORDS: Record<Lang, Words> = {
  en: { lang: "en", t: TEXTS.en },
  nb: { lang: "nb", t: TEXTS.nb },
};
